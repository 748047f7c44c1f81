import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createAuthority, issueCertificate, type KeyPair } from '@somagent/bootstrap/secrets/certificates.ts';
import { Front } from './front.ts';

const run = promisify(execFile);
const slm = new URL('../../slm/', import.meta.url).pathname;
const program = new URL('llama_server.py', import.meta.url).pathname;

/**
 * llama.cpp's own server with the bundled model: the real thing for both protocols, `/v1/chat/completions` and
 * `/v1/messages`. Callers reach it through fronts, which add the TLS that this build lacks.
 */
export class TestLlama {
  readonly caFile: string;
  /** The file with the key that the server wants. */
  readonly credentialFile: string;
  readonly #folder: string;
  readonly #child: ChildProcess;
  readonly #leaf: KeyPair;
  readonly #fronts: Front[] = [];

  private constructor(folder: string, child: ChildProcess, leaf: KeyPair) {
    this.#folder = folder;
    this.#child = child;
    this.#leaf = leaf;
    this.caFile = join(folder, 'ca.crt');
    this.credentialFile = join(folder, 'key');
  }

  /** Starts the server and waits until it listens. @param model a GGUF file */
  static async start(model: string, kind: 'chat' | 'embedding' = 'chat'): Promise<TestLlama> {
    const folder = await mkdtemp(join(tmpdir(), 'llama-'));
    const authority = await createAuthority('test authority');
    const names = { commonName: 'llama', dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'] };
    const leaf = await issueCertificate(authority, { ...names, usages: ['server'] });
    const files = { 'ca.crt': authority.certificate, key: 'a key of this test\n', wrong: 'another key' };
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
    const args = ['slm-serve-venv', 'requirements-serve.txt', 'requirements-test.txt'];
    const { stdout } = await run('scripts/venv.sh', args, { cwd: slm });
    const python = join(stdout.trim(), 'bin/python');
    const child = spawn(python, [program, model, join(folder, 'http.sock'), 'a key of this test', kind], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await Promise.race([once(child.stdout, 'data'), once(child, 'exit').then(ended)]);
    return new TestLlama(folder, child, leaf);
  }

  /** A file with a key that the server refuses. */
  get wrongCredentialFile(): string {
    return join(this.#folder, 'wrong');
  }

  /** An address of its own for the server; it ends with the server. */
  async front(): Promise<Front> {
    const front = await Front.start(join(this.#folder, 'http.sock'), this.#leaf);
    this.#fronts.push(front);
    return front;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#fronts.map((front) => front.stop()));
    if (this.#child.exitCode === null) {
      const exit = once(this.#child, 'exit');
      this.#child.kill('SIGKILL');
      await exit;
    }
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function ended(): never {
  throw new Error('llama.cpp did not start: its output says why');
}
