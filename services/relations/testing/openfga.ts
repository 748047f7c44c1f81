import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { freePort } from '@somagent/bootstrap/testing/processes.ts';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { toolPath } from '../../../cluster/toolchain.ts';
import { OpenFga } from '../client.ts';

/** A real OpenFGA of its own for one test file: loopback, TLS and a preshared key, as on the platform. */
export interface TestOpenFga {
  readonly url: string;
  readonly tokenFile: string;
  readonly caFile: string;
  readonly client: OpenFga;
  /** Everything the server has logged. */
  log(): string;
  /** Ends the process and keeps its place. */
  pause(): Promise<void>;
  /** Starts it again at the same address; what was in memory is gone. */
  resume(): Promise<void>;
  stop(): Promise<void>;
}

/** Path of the server's program, built by the toolchain. */
export const openFgaProgram = (): string => toolPath('openfga');

/** Whether the program is built: `node cluster/main.ts` builds it. */
export const hasOpenFga = (): boolean => existsSync(openFgaProgram());

/**
 * Starts the server and waits until it serves.
 * @param database URI of a migrated Postgres database; without it tuples are kept in memory
 */
export async function startOpenFga(database?: string): Promise<TestOpenFga> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-openfga-'));
  const token = randomBytes(32).toString('base64url');
  const authority = await createAuthority('test authority');
  const leaf = await issueCertificate(authority, {
    commonName: 'openfga',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  });
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate, token };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
  const [http, grpc] = [await freePort(), await freePort()];
  const url = `https://127.0.0.1:${http}`;
  const access = { url, tokenFile: join(folder, 'token'), caFile: join(folder, 'ca.crt') };
  const server = new RunningOpenFga(folder, environment(folder, http, grpc, token, database), access);
  await server.resume();
  return server;
}

function environment(folder: string, http: number, grpc: number, token: string, database: string | undefined) {
  return {
    OPENFGA_HTTP_ADDR: `127.0.0.1:${http}`,
    OPENFGA_HTTP_TLS_ENABLED: 'true',
    OPENFGA_HTTP_TLS_CERT: join(folder, 'tls.crt'),
    OPENFGA_HTTP_TLS_KEY: join(folder, 'tls.key'),
    OPENFGA_GRPC_ADDR: `127.0.0.1:${grpc}`,
    OPENFGA_GRPC_TLS_ENABLED: 'true',
    OPENFGA_GRPC_TLS_CERT: join(folder, 'tls.crt'),
    OPENFGA_GRPC_TLS_KEY: join(folder, 'tls.key'),
    OPENFGA_AUTHN_METHOD: 'preshared',
    OPENFGA_AUTHN_PRESHARED_KEYS: token,
    OPENFGA_PLAYGROUND_ENABLED: 'false',
    OPENFGA_METRICS_ENABLED: 'false',
    OPENFGA_LOG_FORMAT: 'json',
    OPENFGA_LOG_LEVEL: 'warn',
    ...(database === undefined
      ? { OPENFGA_DATASTORE_ENGINE: 'memory' }
      : { OPENFGA_DATASTORE_ENGINE: 'postgres', OPENFGA_DATASTORE_URI: database }),
  };
}

class RunningOpenFga implements TestOpenFga {
  readonly url: string;
  readonly tokenFile: string;
  readonly caFile: string;
  readonly client: OpenFga;
  readonly #folder: string;
  readonly #environment: NodeJS.ProcessEnv;
  #child: ChildProcess | undefined;
  #log = '';

  constructor(
    folder: string,
    variables: NodeJS.ProcessEnv,
    access: { readonly url: string; readonly tokenFile: string; readonly caFile: string },
  ) {
    this.#folder = folder;
    this.#environment = variables;
    this.url = access.url;
    this.tokenFile = access.tokenFile;
    this.caFile = access.caFile;
    this.client = new OpenFga(access);
  }

  log(): string {
    return this.#log;
  }

  async resume(): Promise<void> {
    const child = spawn(openFgaProgram(), ['run'], { env: this.#environment, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        this.#log += chunk.toString();
      });
    }
    await waitFor({ name: 'OpenFGA', address: this.url, fix: this.#log }, () => this.client.healthy(), { seconds: 20 });
  }

  async pause(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((done) => child.once('exit', done));
    child.kill('SIGKILL');
    await ended;
  }

  async stop(): Promise<void> {
    await this.pause();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
