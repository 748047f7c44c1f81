import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { copyFileSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cached, imageCache } from '../../../images/cache.ts';
import { run } from '../../../images/command.ts';
import { stageKeycloak } from '../../../images/stage/keycloak.ts';
import { repository } from '../../../images/tag.ts';
import { versions } from '../../../images/versions.ts';
import { createAuthority, issueCertificate } from '../secrets/certificates.ts';
import type { Credentials } from '../settings.ts';
import { waitFor } from '../wait.ts';
import { startPostgres, type TestPostgres } from './postgres.ts';
import { freePort } from './processes.ts';

/** A real Keycloak on a real Postgres for one test file: loopback, HTTPS only, the settings of its image. */
export interface TestKeycloak {
  /** `https://localhost:<port>`. */
  readonly url: string;
  /** File with the PEM of the authority that signed the server's certificate. */
  readonly caFile: string;
  readonly ca: string;
  /** Folder of the server's certificate (`tls.crt`, `tls.key`), good for localhost and 127.0.0.1. */
  readonly tlsDirectory: string;
  /** Client of the realm `master` that may do everything. */
  readonly admin: Credentials;
  readonly postgres: TestPostgres;
  /** Everything the server has logged. */
  log(): string;
  stop(): Promise<void>;
}

const settings = join(repository, 'images/keycloak/quarkus.properties');
const buildOptions = ['--db=postgres', '--health-enabled=true', '--metrics-enabled=true'];

/** The distribution with the image's settings, built as the image builds it: once, then kept. */
function distribution(): Promise<string> {
  const content = [versions.keycloakSha256, readFileSync(settings, 'utf8'), ...buildOptions];
  const key = createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 16);
  return cached('keycloak', key, async (folder) => {
    const log = join(imageCache(), 'logs', 'test-keycloak.log');
    await stageKeycloak({ folder, log, repository });
    copyFileSync(settings, join(folder, 'keycloak/conf/quarkus.properties'));
    await run(join(folder, 'keycloak/bin/kc.sh'), ['build', ...buildOptions], { log });
  });
}

async function writeCertificates(folder: string): Promise<string> {
  const authority = await createAuthority('test authority of keycloak');
  const leaf = await issueCertificate(authority, {
    commonName: 'keycloak',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  });
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
  return authority.certificate;
}

async function createDatabase(postgres: TestPostgres): Promise<Credentials> {
  const credentials = { username: 'keycloak', password: randomBytes(16).toString('hex') };
  const client = await postgres.connect('postgres');
  try {
    await client.query(`create role keycloak login password '${credentials.password}'`);
    await client.query('create database keycloak owner keycloak');
  } finally {
    await client.end();
  }
  return credentials;
}

/** What the construct sets in the pod, with addresses of this machine. */
function environment(folder: string, port: number, postgres: TestPostgres, database: Credentials, admin: Credentials) {
  const { host, port: databasePort } = postgres.server;
  return {
    PATH: process.env.PATH,
    HOME: folder,
    KC_HOSTNAME: `https://localhost:${port}`,
    KC_HOSTNAME_BACKCHANNEL_DYNAMIC: 'true',
    KC_HTTP_ENABLED: 'false',
    KC_HTTP_HOST: '127.0.0.1',
    KC_HTTPS_PORT: String(port),
    KC_HTTPS_CERTIFICATE_FILE: join(folder, 'tls.crt'),
    KC_HTTPS_CERTIFICATE_KEY_FILE: join(folder, 'tls.key'),
    KC_TRUSTSTORE_PATHS: join(folder, 'ca.crt'),
    KC_CACHE: 'local',
    KC_DB_URL: `jdbc:postgresql://${host}:${databasePort}/keycloak?sslmode=verify-full&sslrootcert=${postgres.caFile}&tcpKeepAlive=true&socketTimeout=30`,
    KC_DB_USERNAME: database.username,
    KC_DB_PASSWORD: database.password,
    KC_DB_POOL_MAX_SIZE: '20',
    KC_DB_POOL_ACQUISITION_TIMEOUT: '10s',
    KC_DB_CONNECT_TIMEOUT: '3s',
    KC_BOOTSTRAP_ADMIN_CLIENT_ID: admin.username,
    KC_BOOTSTRAP_ADMIN_CLIENT_SECRET: admin.password,
    JAVA_OPTS:
      '-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xms64m -Xmx320m -XX:MaxMetaspaceSize=224m -Xss512k -Djava.net.preferIPv4Stack=true',
  };
}

/** Starts Postgres and Keycloak and waits until the realm `master` answers: 25 to 60 s, the schema is made anew. */
export async function startKeycloak(): Promise<TestKeycloak> {
  const program = join(await distribution(), 'keycloak/bin/kc.sh');
  const postgres = await startPostgres();
  const folder = await mkdtemp(join(tmpdir(), 'somagent-keycloak-'));
  const ca = await writeCertificates(folder);
  const database = await createDatabase(postgres);
  const [port, management] = await Promise.all([freePort(), freePort()]);
  const admin = { username: 'test-admin', password: randomBytes(16).toString('hex') };
  const env = {
    ...environment(folder, port, postgres, database, admin),
    KC_HTTP_MANAGEMENT_PORT: String(management),
  };
  // A group of its own: the start script does not always become the server.
  const child = spawn(program, ['start', '--optimized'], { env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  const running = new RunningKeycloak(`https://localhost:${port}`, folder, ca, admin, postgres, child);
  const dependency = { name: 'Keycloak', address: running.url, fix: 'start it by hand and read its log' };
  try {
    await waitFor(dependency, () => running.probe(), { seconds: 400 });
  } catch (error) {
    const log = running.log();
    await running.stop();
    throw new Error(log.slice(-4000), { cause: error });
  }
  return running;
}

class RunningKeycloak implements TestKeycloak {
  readonly url: string;
  readonly tlsDirectory: string;
  readonly ca: string;
  readonly admin: Credentials;
  readonly postgres: TestPostgres;
  readonly #child: ChildProcess;
  #log = '';

  constructor(
    url: string,
    folder: string,
    ca: string,
    admin: Credentials,
    postgres: TestPostgres,
    child: ChildProcess,
  ) {
    this.url = url;
    this.tlsDirectory = folder;
    this.ca = ca;
    this.admin = admin;
    this.postgres = postgres;
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.#log += chunk.toString();
      });
    }
  }

  get caFile(): string {
    return join(this.tlsDirectory, 'ca.crt');
  }

  log(): string {
    return this.#log;
  }

  /** Resolves when the server answers; rejects with what is in the way. */
  probe(): Promise<void> {
    if (this.#child.exitCode !== null) throw new Error(`Keycloak ended with ${this.#child.exitCode}`);
    return new Promise((resolve, reject) => {
      const outgoing = request(`${this.url}/realms/master`, { ca: this.ca, timeout: 5000 }, (incoming) => {
        incoming.resume();
        if (incoming.statusCode === 200) resolve();
        else reject(new Error(`status ${incoming.statusCode}`));
      });
      outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 5 s')));
      outgoing.on('error', reject).end();
    });
  }

  async stop(): Promise<void> {
    const { pid } = this.#child;
    if (pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = new Promise((done) => this.#child.once('exit', done));
      process.kill(-pid, 'SIGKILL');
      await ended;
    }
    await this.postgres.stop();
    await rm(this.tlsDirectory, { recursive: true, force: true });
  }
}
