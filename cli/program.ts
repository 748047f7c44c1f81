import { Command, Option } from 'commander';
import { whichKubeconfig } from '../stacks/runner/which-kubeconfig.ts';
import type { AdministrationContext } from './administration.ts';
import { addAdministrationCommands } from './administration-commands.ts';
import { addBudgetCommands } from './budget-commands.ts';
import type { Cluster } from './cluster.ts';
import { CliFailure, exitCodes } from './failure.ts';
import type { LoginContext } from './login.ts';
import { LoginStore } from './login-store.ts';
import { showLogs } from './logs.ts';
import { readOutputs } from './outputs.ts';
import { downSteps, runSteps, statusSteps, upSteps } from './platform.ts';
import { showPolicy } from './policy.ts';
import { positive } from './positive.ts';
import {
  askTurn,
  cancelTurn,
  closeSession,
  listSessions,
  type SessionContext,
  showSession,
  startSession,
} from './session.ts';
import { showStatus } from './status.ts';
import { resolveAccounts, resolveAudit, resolvePlatform, resolveTarget, type TargetOptions } from './target.ts';
import { type WhyContext, why } from './why.ts';

/** What the program needs of the process that it runs in. */
export interface ProgramContext {
  readonly root: string;
  readonly version: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
  readonly write: (text: string) => void;
  /** Writes to standard error. */
  readonly say: (text: string) => void;
}

interface GlobalOptions extends TargetOptions {
  readonly json?: boolean;
}

/** The whole `soma` command. */
export function createProgram(context: ProgramContext): Command {
  const program = new Command('soma')
    .description('Bring the platform up and run agent sessions on it')
    .version(context.version)
    .option('--json', 'print results as JSON, one value per line')
    .addOption(new Option('--stack <name>', 'stack to work on').default('dev').env('STACK'))
    .option('--kubeconfig <file>', 'cluster to use instead of the local one')
    .addOption(new Option('--context <name>', 'context of the kubeconfig').env('SOMA_CONTEXT'))
    .option('--region <name>', 'region to talk to (default: the first of the stack)')
    .showHelpAfterError('run soma --help, or soma <command> --help')
    .exitOverride();
  const surroundings = () => new Surroundings(program, context);
  addPlatformCommands(program, context, surroundings);
  addLoginCommands(program, surroundings);
  addSessionCommands(program, surroundings);
  addBudgetCommands(program, withTarget, (options) => surroundings().session(options));
  addAdministrationCommands(program, withTarget, (options) => surroundings().administration(options));
  addGovernanceCommands(program, surroundings);
  return program;
}

/** Options of the line and what follows from them, read when an action runs. */
class Surroundings {
  readonly options: GlobalOptions;
  readonly #context: ProgramContext;

  get write(): (text: string) => void {
    return this.#context.write;
  }

  constructor(program: Command, context: ProgramContext) {
    this.options = program.opts<GlobalOptions>();
    this.#context = context;
  }

  async cluster(): Promise<Cluster> {
    // The Kubernetes client takes half of the start time, and help and completion never need it.
    const { openCluster } = await import('./cluster.ts');
    return openCluster(whichKubeconfig(this.options, this.#context.root), this.options.context);
  }

  /** @param target options of the command itself */
  session(target: Partial<TargetOptions>): SessionContext {
    const { root, env, signal, write } = this.#context;
    const options = { ...this.options, ...target };
    return {
      target: () => resolveTarget(options, { root, env, cluster: () => this.cluster() }),
      signal,
      write,
      json: this.options.json === true,
      command: 'npx soma',
    };
  }

  /** @param target options of the command itself */
  administration(target: Partial<TargetOptions>): AdministrationContext {
    const { root, env } = this.#context;
    return {
      ...this.session(target),
      accountsUrl: () => resolveAccounts({ ...this.options, ...target }, { root, env }),
    };
  }

  /** @param target options of the command itself */
  why(target: Partial<TargetOptions>): WhyContext {
    const { root, env } = this.#context;
    const auditUrl = () => resolveAudit({ ...this.options, ...target }, { root, env });
    return { ...this.session(target), root, auditUrl };
  }

  /** @param target options of the command itself */
  login(target: Partial<TargetOptions>): LoginContext {
    const { root, env, signal, write, say } = this.#context;
    const options = { ...this.options, ...target };
    const issuer = async () => {
      const found = await resolvePlatform(options, { root, env, cluster: () => this.cluster() });
      return { url: found.issuerUrl, ca: found.ca, patience: found.patience, signal };
    };
    return { issuer, store: new LoginStore(env), json: this.options.json === true, write, say };
  }
}

type Make = () => Surroundings;

/** A failure to tell later: what comes next tells more about its cause. */
function asFailure(error: unknown): CliFailure {
  if (error instanceof CliFailure && error.exitCode !== exitCodes.interrupted) return error;
  throw error;
}

function addPlatformCommands(program: Command, context: ProgramContext, make: Make): void {
  const { root, signal, write } = context;
  program
    .command('up')
    .description('bring the platform up and answer one session; safe to repeat and to interrupt')
    .option('--question <text>', 'question of the first session', 'What is SomaGent?')
    .option('--no-session', 'do not ask a question at the end')
    .action(async (options: { question: string; session: boolean }) => {
      const { options: global } = make();
      await runSteps(root, upSteps(global), signal);
      if (!options.session || (readOutputs(root, global.stack)?.clients.length ?? 0) === 0) return;
      await startSession(make().session({ agent: true }), { question: options.question, report: true });
    });
  program
    .command('down')
    .description('take everything away that up brought; caches stay')
    .action(() => runSteps(root, downSteps(make().options), signal));
  program
    .command('status')
    .description('what runs, and why something does not')
    .action(async () => {
      const surroundings = make();
      const { json = false } = surroundings.options;
      const machine = json
        ? undefined
        : await runSteps(root, statusSteps(surroundings.options), signal).catch(asFailure);
      await showStatus(await surroundings.cluster(), json, write);
      if (machine !== undefined) throw machine;
    });
  program
    .command('logs')
    .description('print the log of a service or a pod')
    .argument('<name>', 'service (gateway, orchestrator, temporal, keycloak, postgres, slm) or pod')
    .option('-n, --namespace <name>', 'only pods of this namespace')
    .option('-f, --follow', 'go on as lines appear', false)
    .option('--tail <lines>', 'lines from the end of each', positive, 100)
    .action(async (name: string, options: { namespace?: string; follow: boolean; tail: number }) =>
      showLogs(await make().cluster(), name, options, process.stdout, signal),
    );
}

function withPlatform(command: Command): Command {
  return command
    .option('--gateway <url>', 'gateway (SOMA_GATEWAY_URL; default: of the stack)')
    .option('--issuer <url>', 'issuer of tokens (SOMA_ISSUER_URL; default: of the stack)')
    .option('--ca-file <file>', "authority to trust (SOMA_CA_FILE; default: the region's)");
}

function withTarget(command: Command): Command {
  return withPlatform(command)
    .option('--agent', "act as the tenant's agent, also while you are signed in")
    .option('--client <id>', 'client to sign in as (SOMA_CLIENT_ID; default: the first of the stack)')
    .option(
      '--client-secret-file <file>',
      "file with the client's secret (or SOMA_CLIENT_SECRET; default: its Secret)",
    );
}

function addLoginCommands(program: Command, make: Make): void {
  const add = (name: string, description: string) => withPlatform(program.command(name).description(description));
  // openid-client and its cryptography are loaded by those who sign in, not by help and completion.
  const commands = () => import('./login.ts');
  add('login', 'sign in as a person, in a browser; other commands then act for you')
    .option('--device', 'sign in on another device, by a code')
    .option('--no-browser', 'print the address only')
    .action(async (options) =>
      (await commands()).login(make().login(options), { device: options.device === true, browser: options.browser }),
    );
  add('logout', 'end your session and forget its tokens').action(async (options) =>
    (await commands()).logout(make().login(options)),
  );
  add('whoami', 'who is signed in, with tenant, roles and teams').action(async (options) =>
    (await commands()).whoAmI(make().login(options)),
  );
}

function addSessionCommands(program: Command, make: Make): void {
  const session = program.command('session').description('start sessions and talk to them');
  const add = (name: string, description: string) => withTarget(session.command(name).description(description));
  add('start', 'start a session, with its first question')
    .option('-q, --question <text>', 'first question')
    .option('--persona <name>', 'persona that answers')
    .option('--idempotency-key <key>', 'the same key starts the same session once only')
    .option('--stream', 'print the answer while it is generated')
    .option('--report', 'print question, answer, workflow and latencies')
    .action((options) => startSession(make().session(options), options));
  add('list', "list your tenant's sessions, newest first")
    .option('--limit <count>', 'sessions on a page', positive, 20)
    .option('--cursor <cursor>', 'go on from here')
    .action((options) => listSessions(make().session(options), { ...options, limit: String(options.limit) }));
  add('show', 'show a session and its turns')
    .argument('<id>')
    .action((id, options) => showSession(make().session(options), id));
  add('turn', 'ask one more question')
    .argument('<id>')
    .argument('<question>')
    .option('--stream', 'print the answer while it is generated')
    .action((id, question, options) => askTurn(make().session(options), id, question, options.stream === true));
  add('cancel', 'cancel the turn that runs')
    .argument('<id>')
    .action((id, options) => cancelTurn(make().session(options), id));
  add('close', 'close a session for good')
    .argument('<id>')
    .action((id, options) => closeSession(make().session(options), id));
}

function addGovernanceCommands(program: Command, make: Make): void {
  withTarget(program.command('why'))
    .description('explain what was decided about a request, and by which rule')
    .argument('<request-id>', 'x-request-id of the answer')
    .option('--audit <url>', 'audit service (SOMA_AUDIT_URL; default: of the stack)')
    .action((requestId, options) => why(make().why(options), requestId));
  withTarget(program.command('coverage'))
    .description('compute which endpoints of the running platform are protected; fails when one is not')
    .option('--audit <url>', 'audit service (SOMA_AUDIT_URL; default: of the stack)')
    .action(async (options) => {
      const surroundings = make();
      // It brings the schemas of the routes with it.
      const { coverage } = await import('./coverage.ts');
      await coverage({ ...surroundings.why(options), cluster: () => surroundings.cluster() });
    });
  const policy = program.command('policy').description('which policy decides, and whom another one would touch');
  policy
    .command('status')
    .description('show the revision that each pod decides by; fails when one is not the published one')
    .action(async () => {
      const surroundings = make();
      await showPolicy(await surroundings.cluster(), surroundings.options.json === true, surroundings.write);
    });
  policy
    .command('replay')
    .description('ask recorded verdicts again, of the policies of this working tree')
    .argument('<file>', 'NDJSON of the topic verdict.decisions')
    .action(async (file) => {
      // It compiles the policies, which no other command does.
      const { replayReport } = await import('../policies/regression/replay-report.ts');
      make().write(await replayReport(file));
    });
}
