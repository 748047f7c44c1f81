/** The platform grows with its load and shrinks again, and no turn is lost on the way. */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { type ScalingRun, scalingRun, tableOf, verdictOf } from './bench/scaling.ts';
import { kubectl } from './support/kubectl.ts';

const namespace = 'local-services';
/** More than twice the turns that one worker shall have at once, so that fast workers are too few as well. */
const sessions = 40;

describe('scaling', () => {
  let run: ScalingRun;

  before(async () => {
    run = await scalingRun(sessions, 60, 240);
    console.log(tableOf(run));
  });

  it('adds workers under load and takes them away again', () => {
    const { workers } = verdictOf(run);
    assert.equal(workers.swings, true, JSON.stringify(workers));
  });

  it('loses no turn: what was asked is answered, once, and stored', () => {
    assert.deepEqual(run.lost, []);
    assert.deepEqual([run.answered, run.stored], [run.asked, run.asked]);
  });

  it('lets the scaler change the size of one Deployment and nothing else', async () => {
    const may = (...what: string[]) =>
      kubectl('auth', 'can-i', ...what, '-n', namespace, '--as', `system:serviceaccount:${namespace}:scaler`).catch(
        () => 'no',
      );
    assert.equal(await may('update', 'deployments.apps/orchestrator', '--subresource=scale'), 'yes');
    assert.equal(await may('update', 'deployments.apps/gateway', '--subresource=scale'), 'no');
    assert.equal(await may('patch', 'deployments.apps/orchestrator'), 'no');
    assert.equal(await may('get', 'secrets'), 'no');
  });
});
