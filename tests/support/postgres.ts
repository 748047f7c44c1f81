import { spawn } from 'node:child_process';
import { toolPath } from '../../cluster/toolchain.ts';
import { get, kubeconfig, kubectl } from './kubectl.ts';

/** A client inside the cluster that inserts one row per transaction, as fast as it is acknowledged. */
export interface Writer extends AsyncDisposable {
  /** Identifiers whose commit the server acknowledged, in order. */
  readonly acknowledged: readonly number[];
  /** Stops writing and reads back what is stored. */
  finish(): Promise<WriterReport>;
}

export interface WriterReport {
  readonly acknowledged: readonly number[];
  readonly stored: readonly number[];
  /** Longest time between two acknowledged writes, in milliseconds, on the client's clock. */
  readonly longestGapMs: number;
}

interface Secret {
  readonly data: { readonly username: string; readonly password: string };
}

const decode = (value: string): string => Buffer.from(value, 'base64').toString('utf8');

/** Shell lines that make psql talk to the primary over verified TLS. The password goes in by standard input only. */
async function connection(namespace: string): Promise<string> {
  const { data } = await get<Secret>('secret', 'postgres-superuser', '-n', namespace);
  const ca = await get<{ data: Record<string, string> }>('secret', 'region-ca-cert', '-n', namespace);
  return [
    `umask 077; cat > /tmp/probe-ca.crt <<'PEM'\n${decode(ca.data['ca.crt'] ?? '')}\nPEM`,
    `export PGHOST=postgres.${namespace}.svc PGDATABASE=postgres PGSSLMODE=verify-full PGSSLROOTCERT=/tmp/probe-ca.crt`,
    `export PGCONNECT_TIMEOUT=1 PGUSER='${decode(data.username)}' PGPASSWORD='${decode(data.password)}'`,
  ].join('\n');
}

async function replica(namespace: string): Promise<string> {
  const pods = await get<{ items: { metadata: { name: string } }[] }>('pods', '-n', namespace, '-l', 'role=replica');
  const name = pods.items[0]?.metadata.name;
  if (name === undefined) throw new Error(`no pod with role=replica in ${namespace}: is Patroni healthy?`);
  return name;
}

async function shell(pod: string, namespace: string) {
  const args = ['--kubeconfig', kubeconfig, 'exec', '-i', '-n', namespace, pod, '--', 'bash'];
  return spawn(await toolPath('kubectl'), args, { stdio: ['pipe', 'pipe', 'inherit'] });
}

/** Runs SQL in a replica's pod against the primary and returns the rows as lines. */
export async function query(sql: string, namespace = 'local-data'): Promise<string[]> {
  const child = await shell(await replica(namespace), namespace);
  child.stdin.end(`${await connection(namespace)}\npsql -qAtX -v ON_ERROR_STOP=1 <<'SQL'\n${sql}\nSQL\n`);
  let output = '';
  for await (const chunk of child.stdout) output += String(chunk);
  return output.trim().split('\n').filter(Boolean);
}

/** Starts a {@link Writer} in a replica's pod, which survives the loss of the primary. */
export async function openWriter(namespace = 'local-data'): Promise<Writer> {
  const table = `probe_${Date.now()}`;
  await query(`create table ${table} (id bigint primary key)`, namespace);
  const acknowledged: number[] = [];
  const times: number[] = [];
  const child = await shell(await replica(namespace), namespace);
  child.stdin.end(`${await connection(namespace)}
    i=0; while [ $SECONDS -lt 200 ]; do i=$((i+1));
      psql -qX -c "insert into ${table} values ($i)" 2>/dev/null && { echo "$i $(date +%s%3N)" || exit; }; done`);
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    for (const line of text.trim().split('\n')) {
      const [id, time] = line.split(' ').map(Number);
      if (id === undefined || time === undefined) continue;
      acknowledged.push(id);
      times.push(time);
    }
  });
  const longestGap = (): number =>
    times.slice(1).reduce((longest, time, index) => Math.max(longest, time - (times[index] ?? time)), 0);
  return {
    acknowledged,
    async finish() {
      child.kill();
      const stored = (await query(`select id from ${table}`, namespace)).map(Number);
      return { acknowledged: [...acknowledged], stored, longestGapMs: longestGap() };
    },
    async [Symbol.asyncDispose]() {
      child.kill();
      await query(`drop table if exists ${table}`, namespace);
      await kubectl('exec', '-n', namespace, await replica(namespace), '--', 'rm', '-f', '/tmp/probe-ca.crt');
    },
  };
}
