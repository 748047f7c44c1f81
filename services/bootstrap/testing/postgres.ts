import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { connect, type Server } from '../database/connect.ts';
import { createAuthority, issueCertificate } from '../secrets/certificates.ts';
import type { Credentials } from '../settings.ts';
import { waitFor } from '../wait.ts';
import { freePort } from './processes.ts';

const run = promisify(execFile);
const binaries = '/usr/lib/postgresql/15/bin';

/** A real Postgres of its own for one test file: a temporary folder, loopback, TLS and scram only. */
export interface TestPostgres {
  readonly server: Server;
  /** File with the PEM of the authority that signed the server's certificate. */
  readonly caFile: string;
  readonly superuser: Credentials;
  /** A folder of the test, removed by stop. */
  readonly folder: string;
  /** Everything the server has logged, statements included. */
  log(): string;
  connect(database: string, credentials?: Credentials): Promise<pg.Client>;
  /** Some connections at once, as a service has them; who opens the pool ends it. */
  pool(database: string, credentials?: Credentials): pg.Pool;
  /** Runs a Postgres client program (pg_dump ...) as the superuser. @returns its stdout */
  client(program: string, args: readonly string[]): Promise<string>;
  stop(): Promise<void>;
}

interface Identity {
  readonly uid?: number;
  readonly gid?: number;
}

/** Postgres refuses to run as root: then it runs as Debian's user `postgres`. */
async function serverIdentity(): Promise<Identity> {
  if (userInfo().uid !== 0) return {};
  const id = async (flag: string) => Number((await run('id', [flag, 'postgres'])).stdout.trim());
  return { uid: await id('-u'), gid: await id('-g') };
}

async function own(path: string, identity: Identity): Promise<void> {
  if (identity.uid !== undefined && identity.gid !== undefined) await chown(path, identity.uid, identity.gid);
}

async function writeFiles(folder: string, files: Readonly<Record<string, string>>, identity: Identity): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(folder, name), text, { mode: 0o600 });
    await own(join(folder, name), identity);
  }
}

/** Settings of postgresql.conf by name. */
export type ServerSettings = Readonly<Record<string, string>>;

function serverArguments(folder: string, port: number, changed: ServerSettings): string[] {
  const settings: ServerSettings = {
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
    fsync: 'off',
    ssl: 'on',
    ssl_cert_file: join(folder, 'tls.crt'),
    ssl_key_file: join(folder, 'tls.key'),
    hba_file: join(folder, 'hba.conf'),
    log_statement: 'all',
    shared_buffers: '16MB',
    max_wal_senders: '0',
    wal_level: 'minimal',
    ...changed,
  };
  return ['-D', join(folder, 'data'), ...Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`])];
}

/**
 * Starts the server and waits until it answers.
 * @param settings where a test needs another one than a quick server has: `{ fsync: 'on' }` to measure
 */
export async function startPostgres(settings: ServerSettings = {}): Promise<TestPostgres> {
  const identity = await serverIdentity();
  const folder = await mkdtemp(join(tmpdir(), 'somagent-postgres-'));
  await own(folder, identity);
  const authority = await createAuthority('test authority');
  const leaf = await issueCertificate(authority, {
    commonName: 'postgres',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  });
  const superuser = { username: 'postgres', password: 'a password of this test only' };
  const hba = 'hostssl all all 127.0.0.1/32 scram-sha-256\n';
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate, 'hba.conf': hba };
  await writeFiles(folder, { ...files, password: superuser.password }, identity);
  const init = ['-D', join(folder, 'data'), '-U', 'postgres', '-A', 'scram-sha-256', '-E', 'UTF8', '--no-sync'];
  await run(join(binaries, 'initdb'), [...init, '--pwfile', join(folder, 'password')], { ...identity, cwd: folder });
  const port = await freePort();
  const child = spawn(join(binaries, 'postgres'), serverArguments(folder, port, settings), {
    ...identity,
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const server = { host: '127.0.0.1', port, ca: authority.certificate };
  const running = new RunningPostgres(server, superuser, folder, child);
  await waitFor({ name: 'Postgres', address: `127.0.0.1:${port}`, fix: running.log() }, () => running.probe(), {
    seconds: 20,
  });
  return running;
}

class RunningPostgres implements TestPostgres {
  readonly server: Server;
  readonly caFile: string;
  readonly superuser: Credentials;
  readonly folder: string;
  readonly #child: ChildProcess;
  #log = '';

  constructor(server: Server, superuser: Credentials, folder: string, child: ChildProcess) {
    this.server = server;
    this.superuser = superuser;
    this.folder = folder;
    this.caFile = join(folder, 'ca.crt');
    this.#child = child;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
  }

  /** Everything the server has logged, statements included. */
  log(): string {
    return this.#log;
  }

  connect(database: string, credentials: Credentials = this.superuser): Promise<pg.Client> {
    return connect(this.server, database, credentials);
  }

  pool(database: string, credentials: Credentials = this.superuser): pg.Pool {
    const { host, port, ca } = this.server;
    const { username: user, password } = credentials;
    const pool = new pg.Pool({ host, port, user, password, database, ssl: { ca }, max: 4 });
    // At the end the server may say goodbye before the connection does.
    return pool.on('error', () => undefined);
  }

  async probe(): Promise<void> {
    await (await this.connect('postgres')).end();
  }

  async client(program: string, args: readonly string[]): Promise<string> {
    const env = {
      PATH: process.env.PATH,
      PGHOST: this.server.host,
      PGPORT: String(this.server.port),
      PGUSER: this.superuser.username,
      PGPASSWORD: this.superuser.password,
      PGSSLMODE: 'verify-full',
      PGSSLROOTCERT: this.caFile,
    };
    return (await run(join(binaries, program), args, { env, maxBuffer: 64 * 1024 * 1024 })).stdout;
  }

  async stop(): Promise<void> {
    const ended = new Promise((done) => this.#child.once('exit', done));
    this.#child.kill('SIGINT');
    await ended;
    await rm(this.folder, { recursive: true, force: true });
  }
}
