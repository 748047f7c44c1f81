import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Verdict } from '@somagent/policy';
import { Agent, request } from 'undici';
import { opaPath, stageCorpus } from '../bundle/corpus.ts';
import type { Question } from './questions.ts';

/**
 * Asks many questions in one request: the server spends its time on verdicts, not on HTTP. The rule adds nothing of its
 * own: each question is put to the decision that it names.
 */
const batch = `package agreement

verdicts := [verdict |
	some question in input.questions
	verdict := answer(question)
]

${['data', 'deploy', 'gateway', 'orchestrator', 'tools', 'training']
  .map(
    (policy) => `answer(question) := verdict if {
	question.entrypoint == "soma/${policy}/verdict"
	verdict := data.soma.${policy}.verdict with input as question.input
}
`,
  )
  .join('\n')}`;

/** A real OPA server on a socket of this process, with the corpus as rules: its own evaluator, not the module. */
export class OpaServer {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #agent: Agent;

  private constructor(child: ChildProcess, folder: string) {
    this.#child = child;
    this.#folder = folder;
    this.#agent = new Agent({ connect: { socketPath: socketIn(folder) }, headersTimeout: 300_000 });
  }

  /** Starts it and waits until it answers. @param source Folder of the corpus. */
  static async start(source?: string): Promise<OpaServer> {
    const folder = stageCorpus(source);
    mkdirSync(join(folder, 'agreement'));
    writeFileSync(join(folder, 'agreement/agreement.rego'), batch);
    const args = [
      'run',
      '--server',
      '--addr',
      `unix://${socketIn(folder)}`,
      '--log-level',
      'error',
      '--skip-version-check',
    ];
    const child = spawn(opaPath(), [...args, '.'], { cwd: folder, stdio: 'ignore' });
    const server = new OpaServer(child, folder);
    while (!(await server.#answers())) {
      if (child.exitCode !== null) throw new Error(`the OPA server ended with ${child.exitCode}`);
      await sleep(50);
    }
    return server;
  }

  /** The verdicts, in the order of the questions. @throws Error when one has none. */
  async verdicts(questions: readonly Question[]): Promise<Verdict[]> {
    const { body } = await request('http://opa/v1/data/agreement/verdicts', {
      dispatcher: this.#agent,
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ input: { questions } }),
    });
    const { result } = (await body.json()) as { result?: Verdict[] };
    if (result?.length === questions.length) return result;
    throw new Error(`the OPA server gave ${result?.length ?? 'no'} verdicts to ${questions.length} questions`);
  }

  async stop(): Promise<void> {
    await this.#agent.destroy();
    if (this.#child.exitCode === null) {
      const ended = new Promise((done) => this.#child.once('exit', done));
      this.#child.kill('SIGKILL');
      await ended;
    }
    rmSync(this.#folder, { recursive: true });
  }

  async #answers(): Promise<boolean> {
    try {
      const { statusCode, body } = await request('http://opa/health', { dispatcher: this.#agent });
      await body.dump();
      return statusCode === 200;
    } catch {
      return false;
    }
  }
}

const socketIn = (folder: string): string => join(folder, 'opa.sock');
