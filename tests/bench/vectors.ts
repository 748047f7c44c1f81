/**
 * The vector store and the embedding worker, as processes of their own with the real engine and model.
 * `node tests/bench/vectors.ts [--points=100000] [--tenants=20] [--queries=300] [--json]`
 *
 * The points are mixtures of two real sentences' vectors each, with noise: as many real sentences as that would take
 * hours to embed, and random vectors have no neighbours worth finding.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { QdrantClient } from '@qdrant/js-client-rest';
import { startEmbeddings, type TestEmbeddings } from '../../services/embeddings/testing.ts';
import { startVectorStore } from '../../services/vector-store/testing.ts';

const { values: options } = parseArgs({
  options: {
    points: { type: 'string', default: '100000' },
    tenants: { type: 'string', default: '20' },
    queries: { type: 'string', default: '300' },
    json: { type: 'boolean', default: false },
  },
});
const [points, tenants, queries] = [options.points, options.tenants, options.queries].map(Number) as [
  number,
  number,
  number,
];
const width = 384;
const batch = 500;
const neighbours = 10;

const figures: Record<string, number | string> = {};
const note = (name: string, value: number | string): void => {
  figures[name] = typeof value === 'number' ? Number(value.toPrecision(3)) : value;
  if (!options.json) console.log(`${name.padEnd(58)} ${figures[name]}`);
};

/** Lines of our own documentation, each once. */
function sentences(count: number): string[] {
  const folders = ['services', 'constructs', 'docs/decisions', 'services/slm/corpus'];
  const root = join(import.meta.dirname, '..', '..');
  const files = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.name.endsWith('.md') && !entry.parentPath.includes('node_modules'))
      .map((entry) => join(entry.parentPath, entry.name)),
  );
  const lines = files.sort().flatMap((file) => readFileSync(file, 'utf8').split(/\n|(?<=\.) /));
  return [...new Set(lines.map((line) => line.trim()).filter((line) => line.length > 30))].slice(0, count);
}

/** A generator with a fixed start (mulberry32): every run has the same points. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function mixtures(basis: readonly number[][], random: () => number): () => number[] {
  const any = () => basis[Math.floor(random() * basis.length)] ?? [];
  return () => {
    const [a, b, share] = [any(), any(), 0.5 + random() / 2];
    const mixed = a.map((value, index) => share * value + (1 - share) * (b[index] ?? 0) + (random() - 0.5) * 0.08);
    const length = Math.hypot(...mixed);
    return mixed.map((value) => Math.round((value / length) * 1e6) / 1e6);
  };
}

function quantiles(milliseconds: number[]): string {
  const sorted = milliseconds.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  return `${at(0.5).toFixed(1)} / ${at(0.95).toFixed(1)}`;
}

/** Seconds of processor time, and resident MiB: all of it, and what is not a file's page. */
function processOf(pid: number): { cpu: number; resident: number; anonymous: number } {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const mebibytes = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1] ?? 0) / 1024;
  const cpu = (Number(stat[11]) + Number(stat[12])) / 100;
  return { cpu, resident: mebibytes('VmRSS'), anonymous: mebibytes('RssAnon') };
}

async function embed(worker: TestEmbeddings, input: string[]): Promise<number[][]> {
  const answer = await fetch(`${worker.url}/v1/embeddings`, {
    method: 'POST',
    headers: { authorization: `Bearer ${worker.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: worker.model, input }),
  });
  if (answer.status !== 200) throw new Error(await answer.text());
  const { data } = (await answer.json()) as { data: { embedding: number[] }[] };
  return data.map(({ embedding }) => embedding);
}

async function measureEmbeddings(): Promise<number[][]> {
  const worker = await startEmbeddings({ EMBEDDINGS_DEADLINE_MS: '600000' });
  try {
    const texts = sentences(600);
    const before = processOf(worker.pid);
    note('embeddings: resident MiB after the start', before.resident);
    const singles: number[] = [];
    for (const text of texts.slice(0, 60)) {
      const started = performance.now();
      await embed(worker, [text]);
      singles.push(performance.now() - started);
    }
    note('embeddings: one sentence, ms p50 / p95', quantiles(singles));
    const cpu = processOf(worker.pid).cpu;
    const started = performance.now();
    const vectors: number[][] = [];
    for (let at = 0; at < texts.length; at += 200) vectors.push(...(await embed(worker, texts.slice(at, at + 200))));
    note('embeddings: sentences/s', (texts.length / (performance.now() - started)) * 1000);
    const after = processOf(worker.pid);
    note('embeddings: sentences per second of processor time', texts.length / (after.cpu - cpu));
    note('embeddings: resident MiB afterwards', after.resident);
    return vectors;
  } finally {
    await worker.stop();
  }
}

type Search = { readonly exact?: boolean; readonly quantization?: Readonly<Record<string, unknown>> };

const searches: Readonly<Record<string, Search>> = {
  'float32 (quantization ignored)': { quantization: { ignore: true } },
  'int8, twice as many rescored': { quantization: { rescore: true, oversampling: 2 } },
  'int8 alone': { quantization: { rescore: false } },
};

async function measureSearch(client: QdrantClient, next: () => number[], pid: number): Promise<void> {
  const asked = Array.from({ length: queries }, () => next());
  for (const filtered of [true, false]) {
    const filter = (index: number) =>
      filtered ? { filter: { must: [{ key: 'tenant', match: { value: `t${index % tenants}` } }] } } : {};
    const run = async (params: Search) => {
      const times: number[] = [];
      const found: Set<unknown>[] = [];
      const before = processOf(pid).cpu;
      for (const [index, query] of asked.entries()) {
        const started = performance.now();
        const answer = await client.query('bench', { query, limit: neighbours, params, ...filter(index) });
        times.push(performance.now() - started);
        found.push(new Set(answer.points.map(({ id }) => id)));
      }
      return { times, found, cpu: ((processOf(pid).cpu - before) / queries) * 1000 };
    };
    const where = filtered ? 'one tenant' : 'all tenants';
    const exact = await run({ exact: true, quantization: { ignore: true } });
    note(`search, ${where}, exact: ms p50 / p95`, quantiles(exact.times));
    for (const [name, params] of Object.entries(searches)) {
      const { times, found, cpu } = await run(params);
      const hits = found.map((ids, index) => [...ids].filter((id) => exact.found[index]?.has(id)).length);
      note(`search, ${where}, ${name}: ms p50 / p95`, quantiles(times));
      note(`search, ${where}, ${name}: ms of processor time`, cpu);
      note(`search, ${where}, ${name}: recall@10`, hits.reduce((sum, each) => sum + each, 0) / queries / neighbours);
    }
  }
}

async function untilIndexed(client: QdrantClient): Promise<void> {
  for (;;) {
    const { status, indexed_vectors_count: indexed } = await client.getCollection('bench');
    if (status === 'green' && ((indexed ?? 0) > 0 || points < 7000)) return;
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function measureStore(basis: readonly number[][]): Promise<void> {
  const store = await startVectorStore();
  try {
    const client = new QdrantClient({ url: store.url, apiKey: store.apiKey, checkCompatibility: false });
    await client.createCollection('bench', {
      vectors: { size: width, distance: 'Cosine' },
      quantization_config: { scalar: { type: 'int8', quantile: 0.99, always_ram: true } },
    });
    const schema = { type: 'keyword', is_tenant: true } as const;
    await client.createPayloadIndex('bench', { wait: true, field_name: 'tenant', field_schema: schema });
    const next = mixtures(basis, generator(7));
    let writing = 0;
    for (let at = 0; at < points; at += batch) {
      const rows = Array.from({ length: Math.min(batch, points - at) }, (_, index) => ({
        ...{ id: at + index, vector: next(), payload: { tenant: `t${(at + index) % tenants}` } },
      }));
      const started = performance.now();
      await client.upsert('bench', { wait: true, points: rows });
      writing += performance.now() - started;
    }
    note(`store: points written per second (${batch} at once, fsynced)`, (points / writing) * 1000);
    const singles: number[] = [];
    for (let index = 0; index < 100; index += 1) {
      const started = performance.now();
      await client.upsert('bench', { wait: true, points: [{ id: index, vector: next(), payload: { tenant: 't0' } }] });
      singles.push(performance.now() - started);
    }
    note('store: one point written and fsynced, ms p50 / p95', quantiles(singles));
    const started = performance.now();
    await untilIndexed(client);
    note('store: seconds until everything is indexed', (performance.now() - started) / 1000);
    await measureSearch(client, next, store.pid);
    const { resident, anonymous } = processOf(store.pid);
    note('store: resident MiB, pages of files included', resident);
    note('store: resident MiB, without pages of files', anonymous);
  } finally {
    await store.stop();
  }
}

note('machine: load before', Number(readFileSync('/proc/loadavg', 'utf8').split(' ')[0]));
await measureStore(await measureEmbeddings());
note('machine: load after', Number(readFileSync('/proc/loadavg', 'utf8').split(' ')[0]));
if (options.json) console.log(JSON.stringify(figures, undefined, 2));
