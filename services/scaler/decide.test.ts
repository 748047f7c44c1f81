import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { blank, type Decision, decide, type Memory, type ScalingRules, type Signals } from './decide.ts';

const rules: ScalingRules = { min: 1, max: 4, workPerReplica: 16, downAfterMs: 60_000 };

const load = (tasks: number, atModel: number, ageSeconds = 0): Signals => ({
  backlog: { tasks, ageSeconds, addRate: 0, dispatchRate: 0 },
  model: { ongoing: atModel, waiting: 0, replicas: 1 },
});

/** Looks every second at the load of that second, from one replica on. */
function play(seconds: number, loadAt: (second: number) => Signals): Decision[] {
  let [memory, current]: [Memory, number] = [blank, 1];
  return Array.from({ length: seconds }, (_, second) => {
    const decision = decide(current, loadAt(second), rules, memory, second * 1000);
    ({ memory } = decision);
    current = decision.replicas;
    return decision;
  });
}

it('goes up at once and as far as needed, and says why', () => {
  const { replicas, reason } = decide(1, load(20, 28), rules, blank, 0);
  assert.equal(replicas, 3);
  assert.equal(reason, '20 tasks wait, 28 turns are at the model, 16 per replica');
});

it('counts what is at the model: no backlog is no idleness', () => {
  assert.equal(decide(2, load(0, 32), rules, blank, 0).replicas, 2);
  assert.equal(decide(1, load(0, 32), rules, blank, 0).replicas, 2);
});

it('takes one more when the few tasks that wait have waited too long', () => {
  const { replicas, reason } = decide(1, load(2, 1, 3.2), rules, blank, 0);
  assert.deepEqual([replicas, reason], [2, 'the oldest of 2 tasks waits for 3.2 s']);
});

it('goes down one at a time, only after a minute in which fewer were enough', () => {
  const looks = play(200, (second) => (second < 5 ? load(60, 0) : load(0, 0)));
  const steps = looks.flatMap(({ replicas }, second) =>
    replicas !== (looks[second - 1]?.replicas ?? 1) ? [[second, replicas]] : [],
  );
  assert.deepEqual(steps, [
    [0, 4],
    [65, 3],
    [80, 2],
    [95, 1],
  ]);
});

it('does not swing with a load that comes and goes', () => {
  const looks = play(300, (second) => (second % 40 < 10 ? load(40, 0) : load(0, 2)));
  assert.deepEqual(new Set(looks.map(({ replicas }) => replicas)), new Set([3]));
});

it('keeps what there is while a signal is missing, and starts its minute anew', () => {
  const quiet = load(0, 0);
  const looks = play(200, (second) => {
    if (second < 5) return load(60, 0);
    if (second === 50) return { ...quiet, model: null };
    return second === 51 ? { backlog: null, model: null } : quiet;
  });
  const lowered = looks.findIndex(({ replicas }) => replicas === 3);
  assert.equal(lowered >= 51 + 54, true, `lowered after ${lowered} s`);
  assert.equal(looks[51]?.reason, 'no signal');
});

it('never leaves its limits and never goes down by more than one, whatever it sees', () => {
  const count = fc.nat({ max: 500 });
  const backlog = fc.option(
    fc.record({
      tasks: count,
      ageSeconds: fc.double({ min: 0, max: 99, noNaN: true }),
      addRate: count,
      dispatchRate: count,
    }),
  );
  const model = fc.option(fc.record({ ongoing: count, waiting: count, replicas: count }));
  const signals = fc.array(fc.record({ backlog, model }), { minLength: 1, maxLength: 200 });
  fc.assert(
    fc.property(signals, (seen) => {
      const looks = play(seen.length, (second) => seen[second] ?? load(0, 0));
      for (const [index, { replicas }] of looks.entries()) {
        assert.ok(replicas >= rules.min && replicas <= rules.max);
        assert.ok(replicas >= (looks[index - 1]?.replicas ?? 1) - 1);
      }
    }),
  );
});

it('brings what is outside of its limits back into them', () => {
  assert.equal(decide(9, load(0, 0), rules, blank, 0).replicas, 4);
  assert.equal(decide(0, load(0, 0), rules, blank, 0).replicas, 1);
});
