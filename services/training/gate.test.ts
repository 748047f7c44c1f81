import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { judge, type Measures } from './gate.ts';

const serving: Measures = { heldOutLoss: 8, retentionLoss: 0.01, answers: 0.96, format: 1, json: 1, tools: 0.5 };
const better: Measures = { ...serving, heldOutLoss: 1 };

it('passes a model that learned and lost nothing', () => {
  assert.deepEqual(judge(better, serving), { passed: true, problems: [], candidate: better, serving });
});

it('names each rule that is broken, with both figures', () => {
  const cases: readonly [Partial<Measures>, string][] = [
    [{ heldOutLoss: 7.9 }, 'held-out loss is 7.900, at most 7.600 is allowed'],
    [{ heldOutLoss: null }, 'held-out loss is no number'],
    [{ retentionLoss: 0.2 }, 'retention loss is 0.200, at most 0.110 is allowed'],
    [{ retentionLoss: null }, 'retention loss is no number'],
    [{ answers: 0.8 }, 'exact answers: 0.800, at least 0.810 is needed'],
    [{ format: 0.9 }, 'plain answers: 0.900, at least 1.000 is needed'],
    [{ json: 0.9 }, 'JSON conformity: 0.900, at least 1.000 is needed'],
    [{ tools: 0.4 }, 'tool conformity: 0.400, at least 0.500 is needed'],
  ];
  for (const [worse, problem] of cases) {
    assert.deepEqual(judge({ ...better, ...worse }, serving).problems, [problem]);
  }
});

it('never passes a model that learned nothing, whatever its figures', () => {
  const share = fc.double({ min: 0, max: 1, noNaN: true });
  const loss = fc.double({ min: 0.001, max: 20, noNaN: true });
  const measures = fc.record({
    heldOutLoss: loss,
    retentionLoss: loss,
    answers: share,
    format: share,
    json: share,
    tools: share,
  });
  fc.assert(
    fc.property(measures, fc.double({ min: 0.9501, max: 10, noNaN: true }), (known, factor) => {
      const candidate = { ...known, heldOutLoss: known.heldOutLoss * factor };
      return !judge(candidate, known).passed;
    }),
  );
});
