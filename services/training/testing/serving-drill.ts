/**
 * The way of a model from its promotion to its tenant's answers: real Postgres, object store, Ray, router and replicas.
 * Run by serving.test.ts in a network of its own.
 */
import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { builtModel } from '@somagent/orchestrator/testing/model.ts';
import type { Requester } from '../database.ts';
import { judge, type Measures } from '../gate.ts';
import { canonical, LineageSigner, type SignedLineage, sha256 } from '../lineage.ts';
import { Models } from '../models.ts';
import { Promotions } from '../promotions.ts';
import { recipeSchema } from '../recipe.ts';
import { Runs } from '../runs.ts';
import { startPlatform, type TestPlatform } from './platform.ts';
import { startSlm, type TestSlm } from './slm.ts';

const anna: Requester = {
  id: 'anna',
  kind: 'user',
  client: 'somagent-cli',
  roles: [],
  teams: [],
  scopes: [],
  keyId: null,
};
const good: Measures = { heldOutLoss: 0.3, retentionLoss: 0.04, answers: 0.9, format: 1, json: 1, tools: 1 };
const serving: Measures = { ...good, heldOutLoss: 8.5, answers: 0.97 };
const octets = 'application/octet-stream';
const json = 'application/json';

describe('from a promotion to the answers of its tenant', () => {
  let platform: TestPlatform;
  let slm: TestSlm;
  let models: Models;
  let runs: Runs;
  let promotions: Promotions;
  let bundled: Buffer;
  let first: Tuned;
  let second: Tuned;

  before(async () => {
    platform = await startPlatform();
    const { db, signer, bucket, folder, store } = platform;
    const model = builtModel();
    assert.ok(model !== undefined, 'there is no model: run services/slm/build-model.sh');
    bundled = await readFile(model);
    models = new Models({ bucket, signer, bundled: model });
    runs = new Runs(db);
    promotions = new Promotions(db, runs, models);
    const keyFile = join(folder, 'public.pem');
    const key = createPublicKey(await readFile(platform.lineageKeyFile));
    await writeFile(keyFile, key.export({ type: 'spki', format: 'pem' }));
    const { url, credentialsDir, caFile } = store.bucket('models', 'slm');
    slm = await startSlm(join(folder, 'slm'), model, {
      ...{ URL: url, CREDENTIALS_DIR: credentialsDir, CA_FILE: caFile, KEY_FILE: keyFile },
    });
  });
  after(async () => {
    await slm?.stop();
    await platform?.stop();
  });

  const answers = async (tenant: string | undefined) => (await slm.ask(tenant)).body.soma.model;
  const changes = (tenant: string, outcome: 'switched' | 'refused') =>
    slm.figure(`slm_model_changes_total{model="soma-tiny@${tenant}",outcome="${outcome}"}`);
  const until = async (what: string, holds: () => Promise<boolean>) => {
    const deadline = Date.now() + 90_000;
    while (!(await holds())) {
      assert.ok(Date.now() < deadline, `${what}: not within 90 s`);
      await sleep(200);
    }
  };
  const refusedOnce = async (tenant: string, act: () => Promise<unknown>) => {
    const number = await changes(tenant, 'refused');
    await act();
    await until(`a refusal for ${tenant}`, async () => (await changes(tenant, 'refused')) === number + 1);
  };

  /** A run that ended with a model of its own weights; the gate decides by its measures. */
  async function tuned(tenant: string, byte: number, candidate: Measures): Promise<Tuned> {
    const model = Buffer.from(bundled);
    model[model.length - 1] = byte;
    const run = await runs.request(tenant, anna, randomUUID(), recipeSchema.parse({}));
    const lineage = {
      ...({ version: 1, tenant, runId: run.id, datasetHash: sha256('data'), turns: { train: 2, heldOut: 1 } } as const),
      ...{ codeHash: sha256('code'), corpusHash: sha256('corpus') },
      baseModelHash: sha256(await models.serving(platform.db, tenant)),
      ...{ recipe: recipeSchema.parse({}), metrics: { candidate, serving }, modelHash: sha256(model) },
    };
    const signed = platform.signer.sign(lineage);
    const gate = judge(candidate, serving);
    if (gate.passed) await models.store(tenant, model, signed, '{}');
    await runs.end(run, { state: gate.passed ? 'passed' : 'refused', reasons: gate.problems, gate, lineage: signed });
    return { runId: run.id, model, signed, hash: sha256(model) };
  }

  /** Callers of both tenants that ask again and again while the work goes on. @returns statuses that are no answer */
  async function underLoad(work: () => Promise<void>): Promise<{ readonly asked: number; readonly failed: number[] }> {
    const failed: number[] = [];
    let [asked, going] = [0, true];
    const caller = async (tenant: string) => {
      while (going) {
        const { status } = await slm.ask(tenant).catch(() => ({ status: 0 }));
        asked += 1;
        if (status !== 200) failed.push(status);
        // The new replica needs a processor too.
        await sleep(50);
      }
    };
    const callers = ['acme', 'acme', 'globex'].map(caller);
    await work().finally(() => {
      going = false;
    });
    await Promise.all(callers);
    return { asked, failed };
  }

  it('answers everybody with the bundled model as long as none is promoted', async () => {
    assert.deepEqual(
      [await answers('acme'), await answers('globex'), await answers(undefined)],
      Array(3).fill('soma-tiny'),
    );
  });

  it('serves a promoted model to its tenant, and no request fails meanwhile', async () => {
    first = await tuned('acme', 1, good);
    const began = performance.now();
    const { asked, failed } = await underLoad(async () => {
      await promotions.promote('acme', anna, randomUUID(), first.runId, 'of this test');
      await until("acme's own model", async () => (await answers('acme')) === 'soma-tiny@acme');
    });
    console.log(
      `  promoted → serving: ${Math.round(performance.now() - began)} ms, ${asked} requests, ${failed.length} failed`,
    );
    assert.deepEqual(failed, []);
    assert.ok(asked > 10, `only ${asked} requests`);
  });

  it('offers it to nobody else, by whichever name', async () => {
    assert.deepEqual([await answers('globex'), await answers(undefined)], ['soma-tiny', 'soma-tiny']);
    assert.deepEqual(await slm.models('acme'), ['soma-tiny', 'soma-tiny@acme']);
    assert.deepEqual(await slm.models('globex'), ['soma-tiny']);
    assert.deepEqual(await slm.models(undefined), ['soma-tiny']);
    assert.equal((await slm.ask('acme', 'soma-tiny@acme')).body.soma.model, 'soma-tiny@acme');
    for (const stranger of ['globex', undefined]) {
      const { status, body } = await slm.ask(stranger, 'soma-tiny@acme');
      assert.deepEqual([status, body.error.code], [404, 'model_not_found']);
    }
    for (const forged of ['acme@', '../acme', 'ACME', '']) assert.equal((await slm.ask(forged)).status, 400, forged);
  });

  it('refuses a model whose hash is not that of its lineage, and stays with the one before', async () => {
    second = await tuned('acme', 2, good);
    const spoiled = Buffer.from(second.model);
    spoiled[spoiled.length - 100] = (spoiled.at(-100) ?? 0) ^ 1;
    await platform.bucket.put(`acme/${second.hash}/model.gguf`, spoiled, octets);
    const promotion = { tenant: 'acme', number: 2, runId: second.runId, modelHash: second.hash };
    await refusedOnce('acme', () => models.announce(promotion));
    assert.equal(await answers('acme'), 'soma-tiny@acme');
    assert.equal(await changes('acme', 'switched'), 1);
  });

  it('refuses a lineage of another model, and one that was changed', async () => {
    const place = `acme/${second.hash}/lineage.json`;
    const changed = canonical(second.signed).replace('"version":1', '"version":2');
    for (const lineage of [canonical(first.signed), changed]) {
      await refusedOnce('acme', () => platform.bucket.put(place, Buffer.from(lineage), json));
    }
    // The model is still a spoiled one.
    await refusedOnce('acme', () => platform.bucket.put(place, Buffer.from(canonical(second.signed)), json));
    assert.equal(await changes('acme', 'switched'), 1);
  });

  it('changes from one promoted model to the next without a failed request', async () => {
    const { asked, failed } = await underLoad(async () => {
      // The same statement once more, perhaps within the second of the refusals before: what was refused has changed.
      await platform.bucket.put(`acme/${second.hash}/model.gguf`, second.model, octets);
      await promotions.promote('acme', anna, randomUUID(), second.runId, 'of this test');
      await until('the second model', async () => (await changes('acme', 'switched')) === 2);
    });
    console.log(`  changed: ${asked} requests, ${failed.length} failed`);
    assert.deepEqual(failed, []);
  });

  it('refuses a promotion from before', async () => {
    await refusedOnce('acme', () =>
      models.announce({ tenant: 'acme', number: 1, runId: first.runId, modelHash: first.hash }),
    );
  });

  it('refuses a model that failed the gate, also when somebody puts it into the store', async () => {
    const refused = await tuned('globex', 3, { ...good, answers: 0.2 });
    await assert.rejects(promotions.promote('globex', anna, randomUUID(), refused.runId, 'of this test'), {
      message: /refused/,
    });
    assert.equal(await platform.bucket.get('serving/globex.json'), undefined);
    // Whoever may write to the store puts everything there that he can have: the lineage is truly signed.
    await models.store('globex', refused.model, refused.signed, '{}');
    const promotion = { tenant: 'globex', number: 1, runId: refused.runId, modelHash: refused.hash };
    const put = (text: string) => platform.bucket.put('serving/globex.json', Buffer.from(text), json);
    const own = join(platform.folder, 'own.pem');
    const { privateKey } = generateKeyPairSync('ed25519');
    await writeFile(own, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    await refusedOnce('globex', () => put(canonical({ promotion, signature: '' })));
    await refusedOnce('globex', () => put(canonical(new LineageSigner(own).signPromotion(promotion))));
    await refusedOnce('globex', () => put(canonical(refused.signed)));
    const foreign = { tenant: 'acme', number: 3, runId: second.runId, modelHash: second.hash };
    await refusedOnce('globex', () => put(canonical(platform.signer.signPromotion(foreign))));
    assert.equal(await answers('globex'), 'soma-tiny');
    assert.deepEqual(await slm.models('globex'), ['soma-tiny']);
  });

  it('goes on with what it has while the store is away', async () => {
    await platform.store.halt();
    await sleep(1500);
    assert.deepEqual([await answers('acme'), await answers('globex')], ['soma-tiny@acme', 'soma-tiny']);
    await platform.store.resume();
  });

  it('holds as many as have a place: whoever asks takes that of the tenant that has not asked for a while', async () => {
    const theirs = await tuned('globex', 4, good);
    const waiting = () => slm.figure('slm_promoted{state="waiting"}');
    await promotions.promote('globex', anna, randomUUID(), theirs.runId, 'of this test');
    await until('a model without a place', async () => (await waiting()) === 1);
    assert.equal(await changes('globex', 'switched'), 0);
    await until("globex's own model", async () => (await answers('globex')) === 'soma-tiny@globex');
    // Nobody is left without an answer, and the way back is the same.
    assert.deepEqual([await answers('acme'), await waiting()], ['soma-tiny', 1]);
    await until("acme's own model once more", async () => (await answers('acme')) === 'soma-tiny@acme');
    assert.deepEqual([await answers('globex'), await waiting()], ['soma-tiny', 1]);
  });
});

/** What a run has made. */
interface Tuned {
  readonly runId: string;
  readonly model: Buffer;
  readonly signed: SignedLineage;
  readonly hash: string;
}
