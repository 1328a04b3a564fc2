"""The costs that are read from the text of a compiled program, against counts by hand."""

import re

import pytest

from jax_diffse.planning.programs import Cost, Program, total

TEXT = """HloModule jit_step, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

%fused (p.1: f32[8,4]) -> f32[8,4] {
  %p.1 = f32[8,4]{1,0} parameter(0)
  ROOT %m = f32[8,4]{1,0} multiply(%p.1, %p.1), metadata={op_name="jit(step)/inside"}
}

%condition (c: (s32[], f32[8,4])) -> pred[] {
  %c = (s32[], f32[8,4]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%c), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

%body (b: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %b = (s32[], f32[8,4]{1,0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%b), index=0
  %x.2 = f32[8,4]{1,0:T(8,128)} get-tuple-element(%b), index=1
  %fusion.2 = f32[8,4]{1,0:T(8,128)S(1)} fusion(%x.2), kind=kLoop, calls=%fused, FROM(loop/mul), COST(100)
  %reduce.2 = f32[8,4]{1,0} all-reduce(%fusion.2), replica_groups={{0,1}}, to_apply=%add, FROM(loop/psum)
  ROOT %next = (s32[], f32[8,4]{1,0}) tuple(%i.2, %reduce.2)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %half = bf16[8,4]{1,0} convert(%x), FROM(cast), COST(7)
  %start = (s32[], f32[8,4]{1,0}) tuple(%zero, %x)
  %loop = (s32[], f32[8,4]{1,0}) while(%start), condition=%condition, body=%body, FROM(loop)TRIPS
  %send = (f32[2,4]{1,0}, f32[4,4]{1,0}) all-gather-start(%half), dimensions={0}, FROM(gather)
  %got = f32[4,4]{1,0} all-gather-done(%send)
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%loop), index=1
}
"""
TEXT = re.sub(r'FROM\((.*?)\)', r'metadata={op_name="jit(step)/shard_map/\1"}', TEXT)
TEXT = re.sub(r'COST\((.*?)\)', r'backend_config={"estimated_cycles":"\1"}', TEXT)
BYTES = 8 * 4 * 4  # of f32[8,4]


def program(trips=''):
    return Program(TEXT.replace('TRIPS', trips))


@pytest.mark.parametrize(('given', 'runs'), [
    ('', 5), (', backend_config={"known_trip_count":{"n":"3"}}', 3)])  # by the condition; by what the compiler knows
def test_the_body_of_a_loop_counts_as_often_as_it_runs(given, runs):
    costs = program(given).by_source()
    assert costs['jit(step)/shard_map/loop/mul'] == Cost(100 * runs, 2 * BYTES * runs, runs)
    assert costs['jit(step)/shard_map/cast'] == Cost(7, BYTES + BYTES / 2, 1)
    (source, trips, cost), = program(given).loops()
    assert (source, trips) == ('jit(step)/shard_map/loop', runs)
    assert cost == Cost(100 * runs, 4 * BYTES * runs, 2 * runs)


def test_what_is_fused_and_what_moves_nothing_does_not_count():
    everything = total(program().operations())
    assert everything.cycles == 7 + 5 * 100
    moved = {'convert': 1.5 * BYTES, 'loop': 5 * 4 * BYTES, 'gather': BYTES / 2 + (2 + 4) * 4 * 4}
    assert everything.moved == sum(moved.values())


def test_collectives_are_counted_with_their_bytes():
    found = program().collectives()
    assert found['all-reduce'] == Cost(0, 5 * 2 * BYTES, 5)
    assert found['all-gather'] == Cost(0, BYTES / 2 + 96, 1) and set(found) == {'all-reduce', 'all-gather'}


def test_cycles_that_the_compiler_does_not_know_count_nothing():
    text = TEXT.replace('TRIPS', '').replace('"estimated_cycles":"7"', '"estimated_cycles":"9223372036854775807"')
    assert total(Program(text).operations()).cycles == 500


def test_a_program_of_this_machine_is_read():
    """A scan of 12 steps, each with one product; XLA for CPUs gives no cycles."""
    import jax
    import jax.numpy as jnp

    def step(x, _):
        return jnp.tanh(x @ x), None

    compiled = jax.jit(lambda x: jax.lax.scan(step, x, None, 12)[0]).lower(jnp.ones((32, 32))).compile()
    found = Program(compiled.as_text())
    assert [trips for _, trips, _ in found.loops()] == [12]
    in_loop = sum(times for operation, times in found.operations() if operation.opcode == 'dot' or times == 12)
    assert in_loop % 12 == 0 and in_loop and total(found.operations()).cycles == 0
