import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { javaOptions, serverEnvironment } from '../../../constructs/schema-registry/server-environment.ts';
import { apicurioRegistry } from '../../../images/stage/apicurio.ts';
import { createAuthority, issueCertificate } from '../secrets/certificates.ts';
import { createSigningKey, type SigningKey } from '../secrets/signing-keys.ts';
import { waitFor } from '../wait.ts';

/** A real Apicurio Registry of its own for one test file, with the settings of production. */
export interface TestSchemaRegistry {
  readonly url: string;
  /** File with the PEM of the authority that signed the server's certificate; this process trusts it already. */
  readonly caFile: string;
  /** The key whose tokens are admitted; its private half is in the file too. */
  readonly key: SigningKey;
  readonly keyFile: string;
  /** The key of those who only read; its private half is in the file too. */
  readonly readerKey: SigningKey;
  readonly readerKeyFile: string;
  /** A folder of the test, removed by stop. */
  readonly folder: string;
  log(): Promise<string>;
  /** Ends the server in order and starts it again on its own database. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts the server and waits until it is ready. */
export async function startSchemaRegistry(): Promise<TestSchemaRegistry> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-registry-'));
  const distribution = await apicurioRegistry(join(folder, 'stage.log'));
  const registry = new RunningRegistry(folder, distribution, await freePort());
  try {
    await registry.prepare();
    await registry.start();
  } catch (error) {
    await registry.stop();
    throw error;
  }
  return registry;
}

class RunningRegistry implements TestSchemaRegistry {
  readonly url: string;
  readonly caFile: string;
  readonly key = createSigningKey('RS256');
  readonly keyFile: string;
  readonly readerKey = createSigningKey('RS256');
  readonly readerKeyFile: string;
  readonly folder: string;
  readonly #distribution: string;
  readonly #port: number;
  #child: ChildProcess | undefined;

  constructor(folder: string, distribution: string, port: number) {
    this.folder = folder;
    this.url = `https://127.0.0.1:${port}`;
    this.caFile = join(folder, 'ca.crt');
    this.keyFile = join(folder, 'private.pem');
    this.readerKeyFile = join(folder, 'reader.pem');
    this.#distribution = distribution;
    this.#port = port;
    // A test runner that is ended must not leave the server behind.
    process.on('exit', this.#kill);
  }

  async prepare(): Promise<void> {
    const authority = await createAuthority('test authority');
    const leaf = await issueCertificate(authority, {
      ...{ commonName: 'schema-registry', dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'], usages: ['server'] },
    });
    await mkdir(join(this.folder, 'tls'));
    await writeFile(join(this.folder, 'tls/tls.crt'), leaf.certificate);
    await writeFile(join(this.folder, 'tls/tls.key'), leaf.key, { mode: 0o600 });
    await writeFile(this.caFile, authority.certificate);
    await writeFile(this.keyFile, this.key['private.pem'], { mode: 0o600 });
    await writeFile(this.readerKeyFile, this.readerKey['private.pem'], { mode: 0o600 });
    setDefaultCACertificates([...getCACertificates('default'), authority.certificate]);
  }

  async start(): Promise<void> {
    const output = createWriteStream(join(this.folder, 'server.log'), { flags: 'a' });
    await once(output, 'open');
    const jar = (await readdir(this.#distribution)).find((name) => name.endsWith('-runner.jar')) ?? '';
    const options = [...javaOptions(120), `-Djava.io.tmpdir=${this.folder}`];
    this.#child = spawn('java', [...options, '-jar', join(this.#distribution, jar)], {
      env: { PATH: process.env.PATH, ...this.#environment() },
      stdio: ['ignore', output, output],
    });
    output.close();
    await waitFor({ name: 'Apicurio Registry', address: this.url, fix: '' }, () => this.#probe(), { seconds: 180 });
  }

  log(): Promise<string> {
    return readFile(join(this.folder, 'server.log'), 'utf8');
  }

  async restart(): Promise<void> {
    await this.#end('SIGTERM');
    await this.start();
  }

  async stop(): Promise<void> {
    await this.#end('SIGKILL');
    process.off('exit', this.#kill);
    await rm(this.folder, { recursive: true, force: true });
  }

  readonly #kill = (): void => {
    this.#child?.kill('SIGKILL');
  };

  #environment(): Record<string, string> {
    const certificateFolder = join(this.folder, 'tls');
    return {
      ...serverEnvironment({ host: '127.0.0.1', port: this.#port, certificateFolder, dataFolder: this.folder }),
      QUARKUS_OIDC_PUBLIC_KEY: this.key['public.pem'],
      QUARKUS_OIDC_READER_PUBLIC_KEY: this.readerKey['public.pem'],
      REGISTRY_DATASOURCE_USERNAME: 'registry',
      REGISTRY_DATASOURCE_PASSWORD: 'a-database-password-of-this-test',
    };
  }

  async #probe(): Promise<void> {
    if (this.#child?.exitCode !== null) throw new Error(`the server has ended: ${(await this.log()).slice(-2000)}`);
    const { status } = await fetch(`${this.url}/health/ready`);
    if (status !== 200) throw new Error(`readiness answers ${status}`);
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  probe.listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  await new Promise((done) => probe.close(done));
  if (address === null || typeof address === 'string') throw new Error('no free port on 127.0.0.1');
  return address.port;
}
