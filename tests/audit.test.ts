/** The audit log of the running platform: what happened is in it once, provable by anybody, and can't be bent. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { verifierPython } from '../services/audit/testing/python.ts';
import { loginAs, logout, type Person } from './attacks/world.ts';
import { get, kubectl } from './support/kubectl.ts';
import { query } from './support/postgres.ts';
import { address, authorityPem, call, tokenOf } from './support/session-api.ts';
import { eventually } from './support/wait.ts';

const verifier = join(import.meta.dirname, '../services/audit/verifier/verify.py');
const people = new Map<string, Person>();
let auditUrl = '';
let folder = '';
let python = '';

before(async () => {
  setDefaultCACertificates([...getCACertificates('default'), await authorityPem()]);
  auditUrl = address('SOMA_AUDIT_URL', 'auditUrl');
  folder = await mkdtemp(join(tmpdir(), 'somagent-audit-platform-'));
  python = await verifierPython();
});
after(async () => {
  await Promise.all([...people.values()].map((one) => logout(one).catch(() => undefined)));
  await rm(folder, { recursive: true, force: true });
});

async function read(who: string, path: string): Promise<Response> {
  const person = people.get(who) ?? (await loginAs(who));
  people.set(who, person);
  return fetch(`${auditUrl}${path}`, { headers: { authorization: `Bearer ${person.access}` } });
}

interface Entry {
  readonly index: number;
  readonly leaf: string;
}

async function entriesOf(who: string, requestId: string): Promise<Entry[]> {
  const response = await read(who, `/v1/audit/entries?requestId=${requestId}&limit=500`);
  assert.equal(response.status, 200, await response.clone().text());
  return ((await response.json()) as { entries: Entry[] }).entries;
}

const typesOf = (entries: readonly Entry[]) => entries.map(({ leaf }) => JSON.parse(leaf).event.type as string).sort();

/** Opens a session. @returns the id of the request */
async function openSession(): Promise<string> {
  const opened = await call('/v1/sessions', { method: 'POST', token: await tokenOf('acme-agent'), body: {} });
  assert.equal(opened.status, 201, JSON.stringify(opened.body));
  return String(opened.headers['x-request-id']);
}

/** Waits until the log has a verdict about the request. */
const recorded = (requestId: string) =>
  eventually(`entries of request ${requestId}`, 60, async () => {
    const entries = await entriesOf('operator-1', requestId);
    return typesOf(entries).includes('verdict.decided') && entries.length > 1 ? entries : undefined;
  });

const sizeOf = (note: string): number => Number(note.split('\n')[1]);

/** The newest witnessed checkpoint, as soon as it covers an entry. */
const checkpointOver = (index: number) =>
  eventually(`a witnessed checkpoint over entry ${index}`, 60, async () => {
    const note = await (await read('operator-1', '/v1/audit/checkpoint')).text();
    return sizeOf(note) > index ? note : undefined;
  });

test('a session that was opened is recorded once, with its verdict, for its tenant and the operator only', async () => {
  const requestId = await openSession();
  await recorded(requestId);
  const own = typesOf(await entriesOf('acme-auditor', requestId));
  assert.equal(own.filter((type) => type === 'verdict.decided').length, 1);
  assert.equal(own.filter((type) => type === 'session.opened').length, 1);
  assert.deepEqual(await entriesOf('globex-auditor', requestId), []);
  assert.equal((await read('globex-auditor', `/v1/verdicts/${requestId}`)).status, 404);
});

interface Verification {
  readonly code: number;
  readonly out: string;
}

async function verify(name: string): Promise<Verification> {
  const keys = (await (await read('operator-1', '/v1/audit/keys')).json()) as { log: string; witness: string };
  const args = ['--log', keys.log, '--witness', keys.witness, '--checkpoint', join(folder, 'checkpoint.txt')];
  return new Promise((resolve) => {
    execFile(python, [verifier, ...args, join(folder, name)], (error, out, err) =>
      resolve({ code: Number(error?.code ?? 0), out: `${out}${err}` }),
    );
  });
}

test('an export of operator and tenant verifies against the witness, and a changed one names the entry', async () => {
  const entries = await recorded(await openSession());
  const last = Math.max(...entries.map(({ index }) => index));
  await writeFile(join(folder, 'checkpoint.txt'), await checkpointOver(last));
  for (const [who, name] of [
    ['operator-1', 'all.ndjson'],
    ['acme-auditor', 'acme.ndjson'],
  ] as const) {
    await writeFile(join(folder, name), await (await read(who, '/v1/audit/export')).text());
    const { code, out } = await verify(name);
    assert.equal(code, 0, out);
  }
  const acme = await readFile(join(folder, 'acme.ndjson'), 'utf8');
  // A verdict on an attempt of acme's own may name another tenant's resource; whose entry it is says its event.
  const owners = acme.split('\n').flatMap((line) => {
    const { leaf } = line === '' ? {} : (JSON.parse(line) as { readonly leaf?: string });
    return leaf === undefined
      ? []
      : [(JSON.parse(leaf) as { readonly event: { readonly tenant: string } }).event.tenant];
  });
  assert.deepEqual([...new Set(owners)], ['acme']);
  const lines = (await readFile(join(folder, 'all.ndjson'), 'utf8')).split('\n');
  const bent = lines.map((line) => (line.includes(`"index":${last},`) ? line.replace('acme', 'evil') : line));
  await writeFile(join(folder, 'bent.ndjson'), bent.join('\n'));
  assert.deepEqual(await verify('bent.ndjson'), {
    code: 1,
    out: `first bad index: ${last}: its bytes do not have its hash\n`,
  });
});

test('the witness that was killed goes on where it was', async () => {
  const note = await (await read('operator-1', '/v1/audit/checkpoint')).text();
  const selector = ['-A', '-l', 'app.kubernetes.io/name=audit,app.kubernetes.io/component=witness'];
  const { items } = await get<{ items: { metadata: { name: string; namespace: string } }[] }>('pods', ...selector);
  const [pod] = items;
  assert.ok(pod !== undefined, 'there is no pod of the witness');
  await kubectl('delete', 'pod', pod.metadata.name, '-n', pod.metadata.namespace, '--grace-period=0', '--force');
  const entries = await recorded(await openSession());
  const later = await checkpointOver(Math.max(...entries.map(({ index }) => index)));
  const path = `/v1/audit/proofs/consistency?from=${sizeOf(note)}&to=${sizeOf(later)}`;
  assert.equal((await read('operator-1', path)).status, 200);
});

test('Postgres refuses to change the log, to its superuser too', async () => {
  for (const change of ['update audit_leaf set topic = topic', 'delete from audit_leaf', 'truncate audit_batch']) {
    const [said = ''] = await query(`
\\connect audit
do $do$ declare said text; begin
  begin
    ${change};
    perform set_config('probe.said', 'it was done', false);
    raise exception 'undo this';
  exception when others then
    get stacked diagnostics said = message_text;
    perform set_config('probe.said', said, false);
  end;
end $do$;
select current_setting('probe.said');`);
    assert.match(said, /^the audit log only grows: (UPDATE|DELETE|TRUNCATE) of audit_/, change);
  }
});
