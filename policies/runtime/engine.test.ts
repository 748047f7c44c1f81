import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, before, beforeEach, describe, it } from 'node:test';
import { compileCorpus, opa, opaPath } from '../bundle/corpus.ts';
import { folderShelf, publish } from '../bundle/publish.ts';
import { sealBundle } from '../bundle/sign.ts';
import {
  type BundleFiles,
  dataFile,
  manifestFile,
  packBundle,
  revisionOf,
  signaturesFile,
  unpackBundle,
} from './bundle.ts';
import { type Drift, FolderSource, PolicyEngine, type PolicyEngineOptions, type PolicyInput } from './index.ts';
import { signBundle } from './signature.ts';

const question: PolicyInput = {
  subject: { tenant: 'acme', id: 'a', kind: 'service-account', roles: ['agent'], teams: [], client: 'x', scopes: null },
  action: { service: 'gateway', route: 'createTurn', method: 'POST', capability: 'session:turn', audit: 'write' },
  resource: { tenant: 'acme', type: 'session', id: 's' },
  relation: { required: null, held: null },
  control: { halted: false, suspended: null, revoked: false, training: 'locked' },
  context: { time: '2026-01-01T00:00:00.000Z', requestId: 'r' },
};

const skip = existsSync(opaPath()) ? false : `${opaPath()} is not built: run make toolchain`;

describe('the policy engine', { skip }, () => {
  let corpus: BundleFiles;
  /** The same rules with facts in which agents have no capability. */
  let strict: BundleFiles;
  let folder: string;
  let keys: { privateKey: KeyObject; publicKey: KeyObject };
  let engines: PolicyEngine[];

  before(() => {
    corpus = compileCorpus();
    const data = JSON.parse(String(corpus.get(dataFile)));
    data.facts.roles.agent = [];
    strict = new Map([...corpus, [dataFile, Buffer.from(JSON.stringify(data))]]);
  });

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'policy-engine-'));
    keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    writeFileSync(join(folder, 'public.pem'), keys.publicKey.export({ type: 'spki', format: 'pem' }));
    engines = [];
  });

  afterEach(async () => {
    await Promise.all(engines.map((each) => each.stop()));
    rmSync(folder, { recursive: true });
  });

  const engine = (options: Partial<PolicyEngineOptions> = {}): PolicyEngine => {
    const source = new FolderSource(folder);
    const made = new PolicyEngine({ source, publicKeyFile: join(folder, 'public.pem'), ...options });
    engines.push(made);
    return made;
  };
  const publishes = (files: BundleFiles, privateKey = keys.privateKey) =>
    publish(files, privateKey, folderShelf(folder));
  const rule = (subject: PolicyEngine) => subject.evaluate('soma/gateway/verdict', question).rule;
  const allowed = 'soma.gateway.allow_by_role';
  const denied = 'soma.gateway.deny_by_default';
  /** Puts an archive in the place of the published one, whatever it is. */
  const plant = (archive: Buffer, revision: string) => {
    const key = `bundles/${revision}.tar.gz`;
    const shelf = folderShelf(folder);
    return shelf
      .write(key, archive)
      .then(() => shelf.write('current.json', Buffer.from(JSON.stringify({ revision, key }))));
  };
  /** An engine that runs the corpus and then meets a bundle that it must refuse, with this reason. */
  const refuses = async (archive: Buffer, revision: string, reason: RegExp) => {
    const { revision: running } = await publishes(corpus);
    const subject = engine({ cacheDir: join(folder, 'cache') });
    await subject.start();
    await plant(archive, revision);
    await subject.refresh();
    assert.match(subject.drift?.reason ?? '', reason);
    assert.equal(subject.drift?.published, revision);
    assert.equal(subject.revision, running);
    assert.equal(rule(subject), allowed);
    // A restart comes back with the last good one, not with the refused one.
    const restarted = engine({ cacheDir: join(folder, 'cache') });
    await restarted.start();
    assert.equal(restarted.revision, running);
  };
  const sealed = (files: BundleFiles, privateKey = keys.privateKey, sequence = 4_000_000_000) =>
    sealBundle(files, privateKey, sequence);

  it('decides by the published bundle, and again after an unchanged publication', async () => {
    const first = await publishes(corpus);
    assert.equal(first.outcome, 'published');
    const subject = engine();
    await subject.start();
    assert.equal(subject.revision, first.revision);
    assert.equal(subject.revision, revisionOf(corpus));
    assert.deepEqual(subject.evaluate('soma/gateway/verdict', question), {
      allow: true,
      rule: allowed,
      reasons: ['a role of the subject has session:turn'],
      obligations: {},
    });
    assert.deepEqual(await publishes(corpus), { ...first, outcome: 'unchanged' });
  });

  it('says no to everything without a bundle, and is not ready', async () => {
    const subject = engine();
    assert.equal(rule(subject), 'soma.engine.deny_without_bundle');
    await subject.start();
    assert.equal(subject.ready, false);
    assert.deepEqual(subject.evaluate('soma/gateway/verdict', question).allow, false);
    await assert.rejects(subject.check(), /no policy bundle: .*current\.json/);
    await publishes(corpus);
    await subject.refresh();
    assert.equal(await subject.check(), `revision ${revisionOf(corpus).slice(0, 12)}`);
    assert.equal(rule(subject), allowed);
  });

  it('swaps without a question that is lost or answered by half a policy', async () => {
    await publishes(corpus);
    const swaps: string[] = [];
    const subject = engine({ pollMs: 5, onSwap: (revision) => swaps.push(revision) });
    await subject.start();
    const answers = new Map<string, number>();
    const ask = async () => {
      while (swaps.length < 7) {
        const said = rule(subject);
        answers.set(said, (answers.get(said) ?? 0) + 1);
        await new Promise((next) => setImmediate(next));
      }
    };
    const change = async () => {
      for (let turn = 0; turn < 6; turn += 1) {
        const seen = swaps.length;
        await publishes(turn % 2 === 0 ? strict : corpus);
        while (swaps.length === seen) await new Promise((next) => setImmediate(next));
      }
    };
    await Promise.all([ask(), ask(), change()]);
    assert.deepEqual([...answers.keys()].sort(), [allowed, denied]);
    assert.ok(Math.min(...answers.values()) > 6, JSON.stringify([...answers]));
  });

  it('refuses a bundle that another key signed', async () => {
    const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const { archive, revision } = await sealed(strict, stranger);
    await refuses(archive, revision, /by no key that is trusted here/);
  });

  it('refuses a changed, an added and a missing file', async () => {
    const { archive, revision } = await sealed(strict);
    const files = await unpackBundle(archive);
    const changed = new Map([...files, [dataFile, Buffer.from('{"facts":{"roles":{}}}')]]);
    await refuses(await packBundle(changed), revision, /data\.json is not what was signed/);
    const added = new Map([...files, ['extra.rego', Buffer.from('package extra')]]);
    await refuses(await packBundle(added), revision, /extra\.rego is not what was signed/);
    const missing = new Map([...files].filter(([name]) => name !== 'lib/lib.rego'));
    await refuses(await packBundle(missing), revision, /lib\/lib\.rego was signed and is not in the bundle/);
  });

  it('refuses a signature by another algorithm, none, two or no signature', async () => {
    const { archive, revision } = await sealed(strict);
    const files = await unpackBundle(archive);
    const [token = ''] = JSON.parse(String(files.get(signaturesFile))).signatures;
    const [, payload] = token.split('.');
    const header = (alg: string) => Buffer.from(JSON.stringify({ alg, kid: 'default' })).toString('base64url');
    const planted = (signatures: unknown[]) =>
      packBundle(new Map([...files, [signaturesFile, Buffer.from(JSON.stringify({ signatures }))]]));
    await refuses(await planted([`${header('none')}.${payload}.`]), revision, /not by ES256/);
    await refuses(await planted([`${header('HS256')}.${payload}.${token.split('.')[2]}`]), revision, /not by ES256/);
    await refuses(await planted([token, token]), revision, /exactly one signature/);
    await refuses(await planted([]), revision, /exactly one signature/);
    const unsigned = new Map([...files].filter(([name]) => name !== signaturesFile));
    await refuses(await packBundle(unsigned), revision, /\.signatures\.json is not in the bundle/);
  });

  it('refuses a revision that is not the hash of the content, and a pointer to another one', async () => {
    const revision = 'ab'.repeat(32);
    const manifest = { revision, roots: ['soma', 'facts'], rego_version: 1, metadata: { sequence: 4_000_000_000 } };
    const files = new Map([...strict, [manifestFile, Buffer.from(JSON.stringify(manifest))]]);
    files.set(signaturesFile, signBundle(files, keys.privateKey));
    await refuses(await packBundle(files), revision, /revision in the manifest is not the hash/);
    const { archive } = await sealed(strict);
    await refuses(archive, revision, /holds revision [0-9a-f]{64}, not abab/);
  });

  it('refuses an older bundle that comes back under its old signature; a new publication of it is taken', async () => {
    await publishes(strict);
    const old = readFileSync(join(folder, `bundles/${revisionOf(strict)}.tar.gz`));
    await refuses(old, revisionOf(strict), /number \d+ and number \d+ ran already/);
    // The way back for people: publish what shall run again, under a new number.
    await publishes(corpus);
    await publishes(strict);
    const [subject] = engines;
    await subject?.refresh();
    assert.equal(subject?.revision, revisionOf(strict));
    assert.equal(subject?.drift, null);
  });

  it('refuses a bundle that is cut short, anywhere', async () => {
    const { archive, revision } = await sealed(strict);
    for (const length of [0, 1, 100, archive.length >> 1, archive.length - 9, archive.length - 1]) {
      await refuses(archive.subarray(0, length), revision, /cannot be unpacked/);
    }
  });

  it('refuses a bundle without an entry point, and one whose policy allows everything', async () => {
    const source = mkdtempSync(join(tmpdir(), 'corpus-'));
    cpSync(join(import.meta.dirname, '..'), source, {
      recursive: true,
      filter: (path) => !path.includes('node_modules') && !path.includes('openfga'),
    });
    try {
      const permissive =
        'package soma.tools\n\nverdict := {"allow": true, "rule": "soma.tools.allow_all", "reasons": [], "obligations": {}}\n';
      writeFileSync(join(source, 'tools/tools.rego'), permissive);
      const open = await sealed(compileCorpus(source));
      await refuses(open.archive, open.revision, /soma\/tools\/verdict allows an empty question/);
      writeFileSync(join(source, 'tools/tools.rego'), 'package soma.tools\n\nverdict := "yes"\n');
      const shapeless = await sealed(compileCorpus(source));
      await refuses(shapeless.archive, shapeless.revision, /something that is no verdict/);
      const partial = await sealed(compileCorpus(source, ['soma/gateway/verdict']));
      await refuses(partial.archive, partial.revision, /no entry point soma\/tools\/verdict/);
    } finally {
      rmSync(source, { recursive: true });
    }
  });

  it('starts from its cache while the store is away, and refuses a cache that was changed', async () => {
    await publishes(corpus);
    const cacheDir = join(folder, 'cache');
    await engine({ cacheDir }).start();
    const away = new FolderSource(join(folder, 'nowhere'));
    const restarted = engine({ cacheDir, source: away });
    await restarted.start();
    assert.equal(restarted.revision, revisionOf(corpus));
    assert.equal(rule(restarted), allowed);
    assert.match(restarted.detail(), /^revision [0-9a-f]{12}, drift: /);
    const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    writeFileSync(join(cacheDir, 'bundle.tar.gz'), (await sealed(strict, stranger)).archive);
    const deceived = engine({ cacheDir, source: away });
    await deceived.start();
    assert.equal(deceived.ready, false);
    assert.equal(rule(deceived), 'soma.engine.deny_without_bundle');
  });

  it('keeps the rollback guard across a restart', async () => {
    await publishes(strict);
    const old = readFileSync(join(folder, `bundles/${revisionOf(strict)}.tar.gz`));
    await publishes(corpus);
    const cacheDir = join(folder, 'cache');
    await engine({ cacheDir }).start();
    await plant(old, revisionOf(strict));
    const restarted = engine({ cacheDir });
    await restarted.start();
    assert.equal(restarted.revision, revisionOf(corpus));
    assert.match(restarted.drift?.reason ?? '', /ran already/);
  });

  it('tells within 5 s that what runs is not what is published, once, and when that ends', async () => {
    await publishes(corpus);
    const seen: (Drift | null)[] = [];
    const { promise: begun, resolve: begins } = Promise.withResolvers<void>();
    const { promise: ended, resolve: ends } = Promise.withResolvers<void>();
    const onDrift = (drift: Drift | null) => {
      seen.push(drift);
      if (drift === null) ends();
      else begins();
    };
    const subject = engine({ onDrift });
    await subject.start();
    const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const { archive, revision } = await sealed(strict, stranger);
    const planted = performance.now();
    await plant(archive, revision);
    await begun;
    const seconds = (performance.now() - planted) / 1000;
    assert.ok(seconds < 5, `seen after ${seconds.toFixed(1)} s`);
    assert.deepEqual([seen[0]?.running, seen[0]?.published], [revisionOf(corpus), revision]);
    assert.match(
      await subject.check(),
      /^revision [0-9a-f]{12}, drift: the signature is by no key that is trusted here$/,
    );
    await subject.refresh();
    await publishes(corpus);
    await ended;
    assert.deepEqual([seen.length, seen[1], subject.drift], [2, null, null]);
  });

  it('trusts a second key while the first is being replaced', async () => {
    const next = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const file = join(folder, 'public.pem');
    writeFileSync(file, `${readFileSync(file, 'utf8')}${next.publicKey.export({ type: 'spki', format: 'pem' })}`);
    await publishes(corpus);
    const subject = engine();
    await subject.start();
    await publishes(strict, next.privateKey);
    await subject.refresh();
    assert.equal(subject.revision, revisionOf(strict));
  });

  it('denies what it is asked without a known entry point', async () => {
    await publishes(corpus);
    const subject = engine();
    await subject.start();
    const verdict = subject.evaluate('soma/lib/refusal' as 'soma/gateway/verdict', question);
    assert.deepEqual([verdict.allow, verdict.rule], [false, 'soma.engine.deny_failed_evaluation']);
  });
});

describe('a bundle', { skip }, () => {
  it('has the same bytes each time it is compiled and packed', async () => {
    const [first, second] = [compileCorpus(), compileCorpus()];
    assert.equal(revisionOf(first), revisionOf(second));
    assert.deepEqual(await packBundle(first), await packBundle(second));
  });

  it('is verified by OPA too, and refused by it when a file was changed', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bundle-'));
    try {
      const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      writeFileSync(join(folder, 'public.pem'), publicKey.export({ type: 'spki', format: 'pem' }));
      const { archive } = await sealBundle(compileCorpus(), privateKey, 1);
      writeFileSync(join(folder, 'good.tar.gz'), archive);
      const files = await unpackBundle(archive);
      const forged = new Map([...files, [dataFile, Buffer.from('{"facts":{}}')]]);
      writeFileSync(join(folder, 'bad.tar.gz'), await packBundle(forged));
      const verify = (name: string) =>
        opa(
          ['build', '--bundle', name, '--verification-key', 'public.pem', '--signing-alg', 'ES256', '--output', 'out'],
          { cwd: folder },
        );
      verify('good.tar.gz');
      assert.throws(() => verify('bad.tar.gz'), /data\.json.*digest mismatch/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
