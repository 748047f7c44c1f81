import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';

/** How a client reaches the server as one user. */
export interface TestClickHouseUser {
  readonly username: string;
  readonly password: string;
  /** Folder with `username` and `password`, as a Secret is mounted. */
  readonly credentialsDir: string;
}

/** A real ClickHouse engine with TLS behind its HTTP protocol, for one test file. */
export interface TestClickHouse {
  /** `https://127.0.0.1:<port>`. The port changes when it starts again. */
  readonly url: string;
  /** Address of /healthz, /readyz and /metrics. */
  readonly healthUrl: string;
  readonly caFile: string;
  readonly database: string;
  /** May do everything in the database. */
  readonly analytics: TestClickHouseUser;
  /** May only read it. */
  readonly reader: TestClickHouseUser;
  /** Process of the server. */
  readonly pid: number;
  /** Ends it at once, as a lost machine would; what was acknowledged stays. */
  kill(): Promise<void>;
  /** Ends it in order and returns its exit code. */
  end(): Promise<number | null>;
  /** Starts it again on the same data. */
  resume(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

const front = import.meta.dirname;

/** Options of {@link startClickHouse}. */
export interface TestClickHouseOptions {
  /** More variables of the server, such as CLICKHOUSE_MAX_QUERIES. @default none */
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts a server on ports of its own in a temporary folder. The first start of a machine installs the engine. */
export async function startClickHouse(options: TestClickHouseOptions = {}): Promise<TestClickHouse> {
  const folder = await mkdtemp(join(tmpdir(), 'clickhouse-'));
  await writeCertificates(folder);
  await mkdir(join(folder, 'data'));
  const [analytics, reader] = await Promise.all([writeUser(folder, 'analytics'), writeUser(folder, 'reader')]);
  const server = new Server(folder, await pythonOfFront(), options.env ?? {});
  const stop = async () => {
    await server.end('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  };
  await server.start().catch(async (error: unknown) => {
    await stop();
    throw error;
  });
  return {
    get url() {
      return `https://127.0.0.1:${server.ports.port}`;
    },
    get healthUrl() {
      return `http://127.0.0.1:${server.ports.healthPort}`;
    },
    get pid() {
      return server.pid;
    },
    caFile: join(folder, 'ca.crt'),
    database: 'analytics',
    analytics,
    reader,
    kill: async () => void (await server.end('SIGKILL')),
    end: () => server.end('SIGTERM'),
    resume: () => server.start(),
    stop,
  };
}

/** The Python with what the server needs; made once and kept. */
export async function pythonOfFront(): Promise<string> {
  const script = join(front, '../slm/scripts/venv.sh');
  const found = await promisify(execFile)(script, ['clickhouse-front-venv', 'requirements.txt'], { cwd: front });
  return join(found.stdout.trim(), 'bin/python');
}

async function writeUser(folder: string, username: string): Promise<TestClickHouseUser> {
  const credentialsDir = join(folder, 'users', username);
  const password = randomBytes(24).toString('base64url');
  await mkdir(credentialsDir, { recursive: true });
  await writeFile(join(credentialsDir, 'username'), username);
  await writeFile(join(credentialsDir, 'password'), password, { mode: 0o600 });
  return { username, password, credentialsDir };
}

async function writeCertificates(folder: string): Promise<void> {
  const authority = await createAuthority('SomaGent test');
  const request = { commonName: 'clickhouse', dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'] };
  const leaf = await issueCertificate(authority, { ...request, usages: ['server'] });
  await mkdir(join(folder, 'tls'));
  await writeFile(join(folder, 'ca.crt'), authority.certificate);
  await writeFile(join(folder, 'tls/tls.crt'), leaf.certificate);
  await writeFile(join(folder, 'tls/tls.key'), leaf.key, { mode: 0o600 });
}

class Server {
  readonly #folder: string;
  readonly #python: string;
  readonly #env: Readonly<Record<string, string>>;
  #child: ChildProcess | undefined;
  ports = { port: 0, healthPort: 0 };

  constructor(folder: string, python: string, env: Readonly<Record<string, string>>) {
    this.#folder = folder;
    this.#python = python;
    this.#env = env;
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('ClickHouse is not running; resume() it');
    return pid;
  }

  /** Ready when it says on which ports it listens. */
  async start(): Promise<void> {
    const env = {
      PATH: process.env.PATH ?? '',
      PYTHONPATH: front,
      PYTHONDONTWRITEBYTECODE: '1',
      CLICKHOUSE_HOST: '127.0.0.1',
      CLICKHOUSE_PORT: '0',
      CLICKHOUSE_HEALTH_PORT: '0',
      CLICKHOUSE_TLS_DIR: join(this.#folder, 'tls'),
      CLICKHOUSE_USERS_DIR: join(this.#folder, 'users'),
      CLICKHOUSE_DATA_DIR: join(this.#folder, 'data'),
      ...this.#env,
    };
    const child = spawn(this.#python, ['-m', 'clickhouse_front.main'], { env, stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    const said: string[] = [];
    for await (const line of createInterface({ input: child.stderr })) {
      said.push(line);
      const { port, health_port: healthPort } = line.startsWith('{') ? JSON.parse(line) : {};
      if (port === undefined) continue;
      this.ports = { port, healthPort };
      child.stderr.resume();
      return;
    }
    throw new Error(`ClickHouse did not start: ${said.join('\n')}`);
  }

  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return child?.exitCode ?? null;
    const ended = new Promise((done) => child.once('exit', done));
    child.kill(signal);
    await ended;
    return child.exitCode;
  }
}

/** The authority's certificate, for a client's `tls.ca_cert`. */
export const authorityOf = (server: TestClickHouse): Promise<Buffer> => readFile(server.caFile);
