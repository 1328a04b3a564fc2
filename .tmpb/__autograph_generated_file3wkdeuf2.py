# coding=utf-8
def outer_factory():
    front_end = None
    load = None

    def inner_factory(ag__):

        def tf__example(index, length):
            with ag__.FunctionScope('example', 'fscope', ag__.STD) as fscope:
                do_return = False
                retval_ = ag__.UndefinedReturnValue()
                waves = ag__.converted_call(ag__.ld(tf).ensure_shape, (ag__.converted_call(ag__.ld(tf).numpy_function, (ag__.ld(load), [ag__.ld(index)], ag__.ld(tf).float32), None, fscope), [2, None]), None, fscope)
                try:
                    do_return = True
                    retval_ = ag__.converted_call(ag__.ld(_example), (ag__.ld(waves), ag__.ld(index), ag__.converted_call(ag__.ld(tf).cast, (ag__.ld(length), ag__.ld(tf).int32), None, fscope), ag__.ld(front_end)), None, fscope)
                except:
                    do_return = False
                    raise
                return fscope.ret(retval_, do_return)
        return tf__example
    return inner_factory