import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { promisify } from 'node:util';
import { repository } from '../../../images/tag.ts';
import { createAuthority, issueCertificate } from '../secrets/certificates.ts';
import { waitFor } from '../wait.ts';

/** A server of ours in Python, with the packages of its image. */
export interface PythonServerProps {
  /** Name for messages and of the kept virtual environment. */
  readonly name: string;
  /** Requirements, relative to the repository: those of the image. */
  readonly requirements: string;
  /** Folders with its packages, relative to the repository. */
  readonly packages: readonly string[];
  /** Module that is run. */
  readonly module: string;
  /** Path that answers 200 when it is ready. */
  readonly readiness: string;
  /** Variables, given the folder of this server (with `tls/`) and its port. */
  readonly environment: (folder: string, port: number) => Promise<Readonly<Record<string, string>>>;
}

/** A server that runs as a process of this machine, over TLS on a port of its own. */
export interface PythonServer {
  /** `https://127.0.0.1:<port>`. */
  readonly url: string;
  /** The authority that signed its certificate; this process trusts it already. */
  readonly caFile: string;
  /** Its folder; removed by stop. */
  readonly folder: string;
  /** Of the process that runs now. */
  readonly pid: number;
  log(): Promise<string>;
  /** Kills it without warning. */
  kill(): Promise<void>;
  /** Asks it to end. @returns its exit code. */
  end(): Promise<number | null>;
  /** Starts it again on what it left. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** The kept virtual environment with exactly these requirements, made where there is none. @returns its Python. */
export async function pythonOf(name: string, requirements: string): Promise<string> {
  const script = join(repository, 'services/slm/scripts/venv.sh');
  const { stdout } = await promisify(execFile)('sh', [script, `${name}-venv`, join(repository, requirements)]);
  return join(stdout.trim(), 'bin/python');
}

/** Starts the server and waits until it is ready. */
export async function startPythonServer(props: PythonServerProps): Promise<PythonServer> {
  const folder = await mkdtemp(join(tmpdir(), `somagent-${props.name}-`));
  await writeCertificate(folder);
  const python = await pythonOf(props.name, props.requirements);
  const port = await freePort();
  const server = new RunningServer(props, folder, python, port, await props.environment(folder, port));
  try {
    await server.start();
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

class RunningServer implements PythonServer {
  readonly url: string;
  readonly caFile: string;
  readonly folder: string;
  readonly #props: PythonServerProps;
  readonly #python: string;
  readonly #variables: Readonly<Record<string, string>>;
  #child: ChildProcess | undefined;

  constructor(
    props: PythonServerProps,
    folder: string,
    python: string,
    port: number,
    variables: Readonly<Record<string, string>>,
  ) {
    this.#props = props;
    this.#python = python;
    this.#variables = variables;
    this.folder = folder;
    this.url = `https://127.0.0.1:${port}`;
    this.caFile = join(folder, 'ca.crt');
    // A test runner that is ended must not leave the server behind.
    process.on('exit', this.#killNow);
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  async start(): Promise<void> {
    const output = createWriteStream(join(this.folder, 'server.log'), { flags: 'a' });
    await once(output, 'open');
    const packages = this.#props.packages.map((folder) => join(repository, folder));
    this.#child = spawn(this.#python, ['-m', this.#props.module], {
      env: { PATH: process.env.PATH, PYTHONPATH: packages.join(':'), PYTHONDONTWRITEBYTECODE: '1', ...this.#variables },
      stdio: ['ignore', output, output],
    });
    output.close();
    await waitFor({ name: this.#props.name, address: this.url, fix: '' }, () => this.#probe(), { seconds: 90 });
  }

  log(): Promise<string> {
    return readFile(join(this.folder, 'server.log'), 'utf8');
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  end(): Promise<number | null> {
    return this.#end('SIGTERM');
  }

  async stop(): Promise<void> {
    await this.#end('SIGKILL');
    process.off('exit', this.#killNow);
    await rm(this.folder, { recursive: true, force: true, maxRetries: 20 });
  }

  readonly #killNow = (): void => {
    this.#child?.kill('SIGKILL');
  };

  async #probe(): Promise<void> {
    if (this.#child?.exitCode !== null) throw new Error(`the server has ended: ${(await this.log()).slice(-2000)}`);
    const { status } = await fetch(`${this.url}${this.#props.readiness}`);
    if (status !== 200) throw new Error(`${this.#props.readiness} answers ${status}`);
  }

  async #end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#child;
    if (child === undefined) return null;
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
    return child.exitCode;
  }
}

async function writeCertificate(folder: string): Promise<void> {
  const authority = await createAuthority('test authority');
  const leaf = await issueCertificate(authority, {
    ...{ commonName: 'test server', dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'], usages: ['server'] },
  });
  await mkdir(join(folder, 'tls'));
  await writeFile(join(folder, 'tls/tls.crt'), leaf.certificate);
  await writeFile(join(folder, 'tls/tls.key'), leaf.key, { mode: 0o600 });
  await writeFile(join(folder, 'ca.crt'), authority.certificate);
  setDefaultCACertificates([...getCACertificates('default'), authority.certificate]);
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
