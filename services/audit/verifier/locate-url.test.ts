import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createAuthority } from '@somagent/bootstrap/secrets/certificates.ts';
import { fetchTrusting } from '@somagent/kit';
import { leafOf } from '../log/leaf.ts';
import { verdictEvent } from '../testing/events.ts';
import { verifierPython } from '../testing/python.ts';
import { startAuditService, type TestAuditService } from '../testing/service.ts';

const program = new URL('locate.py', import.meta.url).pathname;
const operator = { sub: 'olga', roles: ['operator'], preferred_username: 'olga' };
const entries = 21;
const bent = 13;

let folder: string;
let python: string;
let service: TestAuditService;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'somagent-locate-'));
  [python, service] = await Promise.all([verifierPython(), startAuditService()]);
  const events = Array.from({ length: entries }, (_, place) => verdictEvent('acme', `r-${place}`));
  await service.log.append(events.map(({ topic, value }) => leafOf(topic, value)));
  await service.checkpointer.run();
  await writeFile(join(folder, 'token'), await service.token(operator));
  await writeFile(join(folder, 'checkpoint.txt'), await get('/v1/audit/checkpoint'));
});
after(async () => {
  await service?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** What the service answers an operator. */
async function get(path: string): Promise<string> {
  const headers = { authorization: `Bearer ${await service.token(operator)}` };
  const answer = await fetchTrusting(service.caFile)(`${service.url}${path}`, { headers });
  assert.equal(answer.status, 200, path);
  return answer.text();
}

/** The first lines of the export of now: what the kept checkpoint witnesses. The export itself adds to the log. */
async function exported(name: string): Promise<string> {
  const lines = (await get('/v1/audit/export')).split('\n').filter((line) => /"kind":"(entry|hash)"/.test(line));
  await writeFile(join(folder, name), lines.slice(0, entries).join('\n'));
  return join(folder, name);
}

interface Asked {
  readonly url?: string;
  readonly caFile?: string;
  readonly token?: string;
}

/** Runs the program as an auditor does. */
async function locate(file: string, asked: Asked | null = {}): Promise<{ code: unknown; said: string; error: string }> {
  const keys = JSON.parse(await get('/v1/audit/keys'));
  const { url = service.url, caFile = service.caFile, token = join(folder, 'token') } = asked ?? {};
  const args = ['--log', keys.log, '--witness', keys.witness, '--checkpoint', join(folder, 'checkpoint.txt')];
  const online = asked === null ? [] : ['--url', url, '--ca', caFile, '--token', token];
  return new Promise((done) => {
    execFile(python, [program, ...args, ...online, file], (error, said, complaint) =>
      done({ code: error?.code ?? 0, said, error: complaint }),
    );
  });
}

/** Rewrites an entry past the service, as whoever has the database could: the guard of the table is dropped. */
async function rewrite(index: number, change: string): Promise<void> {
  const admin = await service.audit.postgres.connect('audit');
  try {
    await admin.query('alter table audit_leaf disable trigger user');
    await admin.query(`update audit_leaf set ${change} where index = $1`, [index]);
    await admin.query('alter table audit_leaf enable trigger user');
  } finally {
    await admin.end();
  }
}

test('an export of the log as it was witnessed is found to be that', async () => {
  const { code, said } = await locate(await exported('whole.ndjson'));
  assert.deepEqual([code, said], [0, `the first ${entries} entries are those that were witnessed\n`]);
});

test('an entry that was rewritten in the database is named, by proofs that the service is asked for', async () => {
  await rewrite(bent, "leaf = replace(leaf, 'acme', 'evil')");
  const file = await exported('rewritten.ndjson');
  assert.deepEqual(await locate(file), { code: 1, said: `first bad index: ${bent}\n`, error: '' });
  // Without the service nobody can tell where: it is the proofs over HTTPS that do.
  assert.match((await locate(file, null)).said, /somewhere from 0 to 20/);
  // Whoever is not let in gets no proof, and is not told that all is well.
  await writeFile(join(folder, 'stranger'), await service.token({ sub: 'mary', tenant: 'acme', roles: ['member'] }));
  const refused = await locate(file, { token: join(folder, 'stranger') });
  assert.deepEqual([refused.code, /somewhere from 0 to 20/.test(refused.said)], [1, true]);
});

test('a server of another authority is not asked, and no token goes to it', async () => {
  const other = join(folder, 'other.crt');
  await writeFile(other, (await createAuthority('somebody else')).certificate);
  const { code, said, error } = await locate(join(folder, 'rewritten.ndjson'), { caFile: other });
  assert.deepEqual([code, said], [2, '']);
  assert.match(error, /cannot be compared: .*certificate verify failed/i);
});

test('hashes that were rewritten too lead to no witnessed root: the service can hide where, and not that', async () => {
  await rewrite(bent, "hash = sha256('\\x00'::bytea || convert_to(leaf, 'UTF8'))");
  const { code, said } = await locate(await exported('rehashed.ndjson'));
  assert.equal(code, 1);
  const [, first, last = first] = /first bad index: (\d+)(?: \(somewhere from \d+ to (\d+))?/.exec(said) ?? [];
  assert.ok(Number(first) <= bent && bent <= Number(last), said);
});
