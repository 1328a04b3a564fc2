# coding=utf-8
def outer_factory():
    batch_size = None
    num_samples = None
    process = None
    rows = None

    def inner_factory(ag__):
        tf__lam = lambda k: ag__.with_function_scope(lambda lscope: (k // rows * batch_size + process.index * rows + k % rows, num_samples), 'lscope', ag__.STD)
        return tf__lam
    return inner_factory