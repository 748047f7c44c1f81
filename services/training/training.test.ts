import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Answer, type Person, startTraining, type TestTraining } from './testing/service.ts';
import { putSessions, sessionId } from './testing/sessions.ts';

const reason = 'of this test';
const limit = { timeout: 400_000 };

describe('training, with real Ray, real models, the real lock and the real gate', () => {
  let training: TestTraining;
  let acme: string[];
  let globex: string[];

  before(async () => {
    training = await startTraining();
    acme = await putSessions(training.platform, 'acme');
    globex = await putSessions(training.platform, 'globex', true);
  }, limit);
  after(() => training.stop());

  const ask = (...args: Parameters<TestTraining['ask']>) => training.ask(...args);
  const types = async () =>
    (await training.platform.events()).map(({ type }) => type).filter((type) => type !== 'verdict.decided');
  const ended = async (who: Person, id: string): Promise<Answer['body']> => {
    for (;;) {
      const { body } = await ask(who, 'GET', `/v1/training/runs/${id}`);
      if (body.state !== 'queued' && body.state !== 'running') return body;
      await sleep(200);
    }
  };

  it('begins nothing while training is locked', async () => {
    const approval = await ask('anna', 'POST', '/v1/training/approvals', { sessionIds: acme, reason });
    assert.deepEqual([approval.status, approval.body.detail], [403, 'training of the tenant acme is locked']);
    const run = await ask('anna', 'POST', '/v1/training/runs', {});
    assert.deepEqual([run.status, run.body.detail], [403, 'training of the tenant acme is locked']);
    assert.deepEqual(await types(), []);
  });

  it('takes approvals from people only, for sessions of their own tenant only, and records who gave them', async () => {
    await training.unlock('anna', 'ben');
    const body = { sessionIds: acme, reason };
    assert.equal((await ask('mary', 'POST', '/v1/training/approvals', body)).status, 403);
    assert.equal(
      (await ask('robot', 'POST', '/v1/training/approvals', body)).body.type,
      'urn:somagent:problem:not-a-person',
    );
    const foreign = await ask('anna', 'POST', '/v1/training/approvals', { sessionIds: globex, reason });
    assert.equal(foreign.status, 404);
    assert.equal(
      (await ask('anna', 'POST', '/v1/training/runs', {})).body.type,
      'urn:somagent:problem:nothing-approved',
    );
    const approved = await ask('anna', 'POST', '/v1/training/approvals', body);
    assert.deepEqual(approved.body.sessionIds, acme.toSorted());
    assert.deepEqual((await ask('ben', 'POST', '/v1/training/approvals', body)).body.sessionIds, []);
    const { approvals } = (await ask('mary', 'GET', '/v1/training/approvals')).body;
    assert.deepEqual(new Set(approvals.map(({ approvedBy }: { approvedBy: string }) => approvedBy)), new Set(['anna']));
    assert.deepEqual(await types(), ['training.data-approved']);
  });

  it('stops a run that is under way as soon as training is locked', limit, async () => {
    training.runner.start();
    const { body } = await ask('anna', 'POST', '/v1/training/runs', { steps: 2000 });
    while ((await training.runs.get('acme', body.id)).state !== 'running') await sleep(50);
    // Long enough for the job to be at work.
    await sleep(4000);
    const began = performance.now();
    await training.lock('ben');
    const run = await ended('anna', body.id);
    assert.deepEqual([run.state, run.reasons], ['stopped', ['training of the tenant acme is locked']]);
    assert.equal(run.lineage, null);
    console.log(`  locked → stopped: ${Math.round(performance.now() - began)} ms`);
    assert.deepEqual(await types(), ['training.run-requested', 'training.run-ended']);
  });

  it('lets a model serve that learned and forgot nothing, with a lineage that can be checked', limit, async () => {
    await training.unlock('ben', 'anna');
    // As small as a run can be that still learns: the gate compares it like any other.
    const recipe = { steps: 12, rows: 2 };
    const { body } = await ask('anna', 'POST', '/v1/training/runs', recipe);
    assert.equal((await ask('ben', 'POST', '/v1/training/runs', recipe)).body.type, 'urn:somagent:problem:run-open');
    const run = await ended('anna', body.id);
    assert.deepEqual([run.state, run.reasons], ['passed', []]);
    console.log(`  candidate ${JSON.stringify(run.gate.candidate)}\n  serving   ${JSON.stringify(run.gate.serving)}`);
    const { lineage, signature } = run.lineage;
    assert.deepEqual([lineage.tenant, lineage.turns], ['acme', { train: 18, heldOut: 12 }]);
    assert.equal(lineage.recipe.seed, 20_250_101);
    assert.equal(training.platform.signer.verifies({ lineage, signature }), true);
    const other = { ...lineage, recipe: { ...lineage.recipe, seed: 1 } };
    assert.equal(training.platform.signer.verifies({ lineage: other, signature }), false);

    const promotion = `/v1/training/runs/${body.id}/promote`;
    for (const who of ['mary', 'robot', 'gina'] as const) {
      const refused = await ask(who, 'POST', promotion, { reason });
      assert.notEqual(refused.status, 200, who);
    }
    assert.equal((await ask('mary', 'GET', '/v1/training/serving')).body.modelHash, null);
    const promoted = await ask('ben', 'POST', promotion, { reason });
    assert.deepEqual(
      [promoted.status, promoted.body.modelHash, promoted.body.promotedBy],
      [200, lineage.modelHash, 'ben'],
    );
    assert.deepEqual(await types(), ['training.run-requested', 'training.run-ended', 'model.promoted']);
    assert.deepEqual((await ask('ben', 'POST', promotion, { reason })).body, promoted.body);
    assert.deepEqual(await types(), []);
    const announced = await training.platform.bucket.get('serving/acme.json');
    assert.ok(announced !== undefined && announced !== 'unchanged');
    const { promotion: told } = JSON.parse(announced.content.toString());
    assert.deepEqual(told, { tenant: 'acme', number: 1, runId: body.id, modelHash: lineage.modelHash });
    await spoilStoredModel(promotion, lineage.modelHash);
  });

  /** One flipped byte in the store: nobody serves it. */
  async function spoilStoredModel(promotion: string, hash: string): Promise<void> {
    const { bucket } = training.platform;
    const stored = await bucket.get(`acme/${hash}/model.gguf`);
    assert.ok(stored !== undefined && stored !== 'unchanged');
    const spoiled = Buffer.from(stored.content);
    spoiled[spoiled.length - 100] = (spoiled.at(-100) ?? 0) ^ 1;
    await bucket.put(`acme/${hash}/model.gguf`, spoiled, 'application/octet-stream');
    const refused = await ask('anna', 'POST', promotion, { reason });
    assert.deepEqual([refused.status, refused.body.type], [409, 'urn:somagent:problem:model-damaged']);
  }

  it('refuses a model that was trained on noise', limit, async () => {
    await training.unlock('gina', 'hugo');
    await ask('gina', 'POST', '/v1/training/approvals', { sessionIds: globex, reason });
    const { body } = await ask('gina', 'POST', '/v1/training/runs', { steps: 8, rows: 2, rate: 0.01 });
    const run = await ended('gina', body.id);
    assert.equal(run.state, 'refused');
    assert.ok(run.gate.problems.length > 0);
    console.log(`  ${run.gate.problems.join('\n  ')}`);
    const refused = await ask('hugo', 'POST', `/v1/training/runs/${body.id}/promote`, { reason });
    assert.deepEqual([refused.status, refused.body.type], [409, 'urn:somagent:problem:run-not-passed']);
    for (const key of [`globex/${run.lineage.lineage.modelHash}/model.gguf`, 'serving/globex.json']) {
      assert.equal(await training.platform.bucket.get(key), undefined, key);
    }
  });

  it('leaves out what was withdrawn, also while training is locked', async () => {
    await training.lock('gina');
    const withdrawn = { sessionIds: [sessionId('globex/What about %?')], reason };
    assert.equal((await ask('gina', 'POST', '/v1/training/approvals/withdraw', withdrawn)).body.sessionIds.length, 1);
    assert.equal((await ask('gina', 'GET', '/v1/training/approvals')).body.approvals.length, globex.length - 1);
  });
});
