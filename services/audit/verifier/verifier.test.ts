import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { verifierPython } from '../testing/python.ts';
import { writeSample } from '../testing/sample.ts';

const sources = fileURLToPath(new URL('.', import.meta.url));
let folder: string;
let python: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'somagent-audit-verifier-'));
  python = await verifierPython();
  await writeSample(folder, [1, 7, 16, 3, 20, 1, 12]);
});
after(() => rm(folder, { recursive: true, force: true }));

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const run = (file: string, args: readonly string[]) =>
  new Promise<Run>((resolve) => {
    execFile(python, [file, ...args], (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
  });

async function verify(name: string, ...more: string[]): Promise<Run> {
  const keys = JSON.parse(await readFile(join(folder, 'keys.json'), 'utf8'));
  const args = ['--log', keys.log, '--witness', keys.witness, '--checkpoint', join(folder, 'checkpoint.txt'), ...more];
  return run(join(sources, 'verify.py'), [...args, join(folder, name)]);
}

/** A copy of the export with its lines changed. */
async function bent(name: string, change: (lines: string[]) => string[]): Promise<void> {
  const lines = (await readFile(join(folder, 'export.ndjson'), 'utf8')).split(/(?<=\n)/);
  await writeFile(join(folder, name), change(lines).join(''));
}

test('an export of a real log verifies, that of a tenant too, in which other tenants are hashes only', async () => {
  for (const name of ['export.ndjson', 'export-acme.ndjson']) {
    const { code, stdout } = await verify(name);
    assert.deepEqual(
      [code, stdout],
      [0, '60 entries are what audit.example/log signed and witness.example/w1 witnessed\n'],
    );
  }
  const own = await readFile(join(folder, 'export-acme.ndjson'), 'utf8');
  assert.match(own, /"tenant\\":\\"acme\\"/);
  assert.doesNotMatch(own, /globex/);
});

test('the command names the first bad index and ends with 1; with known hashes it names it exactly', async () => {
  const known = join(folder, 'known.hashes');
  assert.equal((await verify('export.ndjson', '--known', known)).code, 0);
  assert.equal((await readFile(known)).length, 60 * 32);
  await bent('flipped.ndjson', (lines) =>
    lines.map((line) => (line.includes('"index":9,') ? line.replace('POST', 'PUT') : line)),
  );
  const flipped = await verify('flipped.ndjson');
  assert.deepEqual([flipped.code, flipped.stdout], [1, 'first bad index: 9: its bytes do not have its hash\n']);
  await bent('short.ndjson', (lines) => lines.slice(0, -2));
  assert.match(
    (await verify('short.ndjson')).stdout,
    /^first bad index: 48 \(somewhere from 48 to 59\): the end of the log/,
  );
  assert.match((await verify('short.ndjson', '--known', known)).stdout, /^first bad index: 59: the end of the log/);
  assert.equal((await readFile(known)).length, 60 * 32);
});

test('keys that are not those of log and witness verify nothing', async () => {
  const keys = JSON.parse(await readFile(join(folder, 'keys.json'), 'utf8'));
  const export_ = join(folder, 'export.ndjson');
  const checkpoint = ['--checkpoint', join(folder, 'checkpoint.txt')];
  const swapped = await run(join(sources, 'verify.py'), [
    '--log',
    keys.witness,
    '--witness',
    keys.log,
    ...checkpoint,
    export_,
  ]);
  assert.deepEqual([swapped.code, swapped.stdout], [2, '']);
  assert.match(swapped.stderr, /cannot be checked: the key of .* is of another kind/);
});

test('mutations of every kind are found, the first bad index named', async () => {
  const { code, stdout, stderr } = await run(join(sources, 'mutations.py'), [folder, '--count', '240']);
  const report = JSON.parse(stdout);
  assert.deepEqual([code, stderr, report.mutations, report.wrong], [0, '', 240, 0]);
  for (const { mutations } of Object.values(report.kinds as Record<string, { mutations: number }>)) {
    assert.equal(mutations, 30);
  }
});

test('the mutations convict a verifier that leaves out a check', async () => {
  const text = await readFile(join(sources, 'verify.py'), 'utf8');
  const faults = [
    ['witness.check(text, lines[1])', 'pass'],
    ['.digest() != leaf_hash', '.digest() == b""'],
    ['(size, root) != (tree.size, tree.root())', 'False'],
    ['if not begun or sealed < end', 'if False'],
  ] as const;
  for (const [check, without] of faults) {
    assert.ok(text.includes(check), check);
    const place = await mkdtemp(join(folder, 'faulty-'));
    await cp(join(sources, 'mutations.py'), join(place, 'mutations.py'));
    await writeFile(join(place, 'verify.py'), text.replace(check, without));
    assert.equal((await run(join(place, 'mutations.py'), [folder, '--count', '64'])).code, 1, check);
  }
});

test('what was rewritten with all of its hashes is named exactly with proofs, and as a range without', async () => {
  const { code, stdout, stderr } = await run(join(sources, 'locations.py'), [folder]);
  assert.deepEqual([code, stderr], [0, '']);
  const { entries, wrong, kinds } = JSON.parse(stdout);
  assert.deepEqual([entries, wrong, Object.keys(kinds).length], [60, 0, 5]);
  for (const { planted, mostAsked } of Object.values(kinds as Record<string, Record<string, number>>)) {
    assert.equal(planted, 60);
    assert.ok((mostAsked ?? 99) <= 6, 'at most one proof for each level of the tree');
  }
});

test('the plants convict a search that takes any proof, or looks on the wrong side', async () => {
  const text = await readFile(join(sources, 'locate.py'), 'utf8');
  const faults = [
    [' or root != self.true[0, self.size]', ''],
    ['(middle, end) if left else (first, middle)', '(first, middle) if left else (middle, end)'],
  ] as const;
  for (const [check, without] of faults) {
    assert.ok(text.includes(check), check);
    const place = await mkdtemp(join(folder, 'faulty-'));
    for (const name of ['locations.py', 'mutations.py', 'verify.py']) await cp(join(sources, name), join(place, name));
    await writeFile(join(place, 'locate.py'), text.replace(check, without));
    assert.equal((await run(join(place, 'locations.py'), [folder])).code, 1, check);
  }
});

test('the command finds a rewritten entry by the proofs that somebody kept, and says which one is missing', async () => {
  const proofs = await readFile(join(folder, 'proofs.ndjson'), 'utf8');
  await bent('rewritten.ndjson', (lines) =>
    lines.map((line) => {
      if (!line.includes('"index":9,')) return line;
      const { kind, index, leaf } = JSON.parse(line);
      const changed = leaf.replace('POST', 'PUT');
      const hash = createHash('sha256').update(`\0${changed}`).digest('base64');
      return `${JSON.stringify({ kind, index, hash, leaf: changed })}\n`;
    }),
  );
  assert.match((await verify('rewritten.ndjson')).stdout, /^first bad index: 8 \(somewhere from 8 to 23\)/);
  const keys = JSON.parse(await readFile(join(folder, 'keys.json'), 'utf8'));
  const find = async (name: string, kept: readonly number[]) => {
    const some = proofs.split('\n').filter((line) => line !== '' && kept.includes(JSON.parse(line).index));
    await writeFile(join(folder, 'some.ndjson'), some.join('\n'));
    const args = ['--log', keys.log, '--witness', keys.witness, '--checkpoint', join(folder, 'checkpoint.txt')];
    return run(join(sources, 'locate.py'), [...args, '--proofs', join(folder, 'some.ndjson'), join(folder, name)]);
  };
  assert.deepEqual(await find('rewritten.ndjson', [9]), { code: 1, stdout: 'first bad index: 9\n', stderr: '' });
  assert.deepEqual(await find('rewritten.ndjson', [8]), { code: 1, stdout: 'first bad index: 9\n', stderr: '' });
  assert.match((await find('rewritten.ndjson', [30])).stdout, /somewhere from 0 to 15; a proof of entry 0 at size 60/);
  assert.equal((await find('export.ndjson', [])).code, 0);
});

test('the verifier is short enough to be read', async () => {
  for (const name of ['verify.py', 'locate.py']) {
    assert.ok((await readFile(join(sources, name), 'utf8')).trimEnd().split('\n').length <= 200, name);
  }
});
