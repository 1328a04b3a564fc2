# coding=utf-8
def outer_factory():

    def inner_factory(ag__):

        def tf___example(waves, index, length, front_end) -> dict[str, tf.Tensor]:
            """Clean and noisy `[2, N]` -> one example, padded to `length` samples."""
            with ag__.FunctionScope('_example', 'fscope', ag__.STD) as fscope:
                do_return = False
                retval_ = ag__.UndefinedReturnValue()
                num_samples = ag__.converted_call(ag__.ld(tf).shape, (ag__.ld(waves),), None, fscope)[1]

                def get_state():
                    return (waves,)

                def set_state(vars_):
                    nonlocal waves
                    waves, = vars_

                def if_body():
                    nonlocal waves
                    waves = ag__.ld(waves)
                    waves *= ag__.converted_call(tf_spectral.gain, (front_end, waves[1]), None, fscope)

                def else_body():
                    nonlocal waves
                    pass
                ag__.if_stmt(ag__.and_(lambda: ag__.ld(front_end) is not None, lambda: ag__.or_(lambda: ag__.ld(front_end).unit_rms, lambda: ag__.ld(front_end).unit_peak)), if_body, else_body, get_state, set_state, ('waves',), 1)
                padded = ag__.converted_call(ag__.ld(tf).pad, (ag__.ld(waves), [[0, 0], [0, ag__.ld(length) - ag__.ld(num_samples)]]), None, fscope)
                result = {'clean': ag__.ld(padded)[0], 'noisy': ag__.ld(padded)[1], 'num_samples': ag__.ld(num_samples), 'index': ag__.ld(index)}

                def get_state_1():
                    return (result,)

                def set_state_1(vars_):
                    nonlocal result
                    result, = vars_

                def if_body_1():
                    nonlocal result
                    specs = ag__.converted_call(ag__.ld(tf).cond, (ag__.ld(num_samples) > 0, ag__.autograph_artifact(lambda: ag__.converted_call(ag__.ld(tf_spectral).analyze, (ag__.ld(front_end), ag__.ld(waves)), None, fscope)), ag__.autograph_artifact(lambda: ag__.converted_call(ag__.ld(tf).zeros, ([2, 0, ag__.ld(front_end).num_bins, 2],), None, fscope))), None, fscope)
                    frames = ag__.converted_call(ag__.ld(tf_spectral).num_frames, (ag__.ld(front_end), ag__.ld(length)), None, fscope) - ag__.converted_call(ag__.ld(tf).shape, (ag__.ld(specs),), None, fscope)[1]
                    specs = ag__.converted_call(ag__.ld(tf).pad, (ag__.ld(specs), [[0, 0], [0, ag__.ld(frames)], [0, 0], [0, 0]]), None, fscope)
                    result = ag__.ld(result)
                    result |= {'clean_spec': specs[0], 'noisy_spec': specs[1]}

                def else_body_1():
                    nonlocal result
                    pass
                specs = ag__.Undefined('specs')
                frames = ag__.Undefined('frames')
                ag__.if_stmt(ag__.ld(front_end) is not None, if_body_1, else_body_1, get_state_1, set_state_1, ('result',), 1)
                try:
                    do_return = True
                    retval_ = ag__.ld(result)
                except:
                    do_return = False
                    raise
                return fscope.ret(retval_, do_return)
        return tf___example
    return inner_factory