import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ConfigError, projectName } from './config.ts';
import { judge } from './judge.ts';
import { program } from './program.ts';
import {
  ApplyError,
  apply,
  type Change,
  destroy,
  formatExplanation,
  type Plan,
  plan,
  preview,
  type Reporter,
  render,
  StreamReporter,
  StuckError,
  stackConfiguration,
} from './runner/index.ts';
import { whichKubeconfig } from './runner/which-kubeconfig.ts';

const root = join(import.meta.dirname, '..');

const usage = `Usage: node stacks/main.ts <command> --stack <name> [options]

Runs the Pulumi program of this repository without the Pulumi CLI.

  apply      bring the cluster to what the program declares
  preview    show what apply would change, drift included
  render     write manifests to rendered/<stack>/<region>/
  destroy    remove everything that apply has made
  outputs    print the outputs of the last apply, as JSON

  --stack <name>        which Pulumi.<name>.yaml to use (default: dev)
  --kubeconfig <file>   (default: .soma/kubeconfig if it is there and no context is given, else the standard places)
  --context <name>      context of the kubeconfig (default: the current one)
  --set <key=value>     overrides a key of the configuration; may be repeated
  --timeout <seconds>   until an object that is not ready counts as stuck (default: 300)
  --directory <path>    where render writes (default: rendered)
`;

/** Options that every command has. */
export interface CommandOptions {
  readonly stack: string;
  readonly kubeconfig?: string | undefined;
  readonly context?: string | undefined;
  readonly overrides?: Readonly<Record<string, string>>;
  readonly timeoutSeconds?: number | undefined;
  readonly directory?: string | undefined;
  readonly reporter: Reporter;
}

/** The commands, for programs that want more than an exit code. */
export const commands = {
  async apply(options: CommandOptions): Promise<Readonly<Record<string, unknown>>> {
    const run = await runOptions(options);
    const result = await apply(program, { ...run, judge: judgeOf(run) });
    await mkdir(join(root, '.soma'), { recursive: true });
    await writeFile(outputsFile(options.stack), `${JSON.stringify(result.outputs, null, 2)}\n`);
    const pruned = result.pruned === 0 ? '' : `, ${result.pruned} removed`;
    options.reporter.line(`stack ${options.stack} works: ${result.objects} objects${pruned}`);
    return result.outputs;
  },

  async preview(options: CommandOptions): Promise<readonly Change[]> {
    const run = await runOptions(options);
    const planned = await plan(program, run);
    await judgeOf(run)(planned);
    return preview(planned, run);
  },

  async render(options: CommandOptions): Promise<void> {
    const directory = join(options.directory ?? join(root, 'rendered'), options.stack);
    const result = render(await plan(program, await runOptions(options)), directory);
    options.reporter.line(`${directory}: ${result.files} files, ${result.changed} changed, ${result.removed} removed`);
  },

  async destroy(options: CommandOptions): Promise<void> {
    const run = await runOptions(options);
    const planned = await plan(program, run);
    const providers = planned.objects.map(({ provider }) => provider);
    const count = await destroy(providers, run);
    await rm(outputsFile(options.stack), { force: true });
    options.reporter.line(`stack ${options.stack} is gone: ${count} objects`);
  },

  async outputs(options: CommandOptions): Promise<unknown> {
    const text = await readFile(outputsFile(options.stack), 'utf8').catch(() => undefined);
    if (text === undefined)
      throw new ConfigError([
        `stack '${options.stack}' has no outputs yet; run: node stacks/main.ts apply --stack ${options.stack}`,
      ]);
    return JSON.parse(text);
  },
};

const outputsFile = (stack: string): string => join(root, '.soma', `outputs.${stack}.json`);

/** What production refuses at admission, a preview refuses already. */
function judgeOf({ config }: Awaited<ReturnType<typeof runOptions>>): (planned: Plan) => Promise<void> {
  return (planned) => judge(planned, [config[`${projectName}:registry`] ?? '']);
}

async function runOptions(options: CommandOptions) {
  return {
    project: projectName,
    stack: options.stack,
    config: await stackConfiguration(root, options.stack, options.overrides),
    kubeconfig: whichKubeconfig(options, root),
    context: options.context,
    timeoutSeconds: options.timeoutSeconds,
    reporter: options.reporter,
  };
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      stack: { type: 'string', default: 'dev' },
      kubeconfig: { type: 'string' },
      context: { type: 'string' },
      set: { type: 'string', multiple: true, default: [] },
      timeout: { type: 'string' },
      directory: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  const [command] = positionals;
  if (values.help || command === undefined || !(command in commands)) {
    process.stdout.write(usage);
    return values.help ? 0 : 2;
  }
  const overrides = Object.fromEntries(
    values.set.map((pair) => [pair.split('=')[0] ?? '', pair.slice(pair.indexOf('=') + 1)]),
  );
  const { kubeconfig, context, directory, timeout, stack } = values;
  const timeoutSeconds = timeout === undefined ? undefined : Number(timeout);
  const result = await commands[command as keyof typeof commands]({
    stack,
    kubeconfig,
    context,
    directory,
    timeoutSeconds,
    overrides,
    reporter: new StreamReporter(),
  });
  if (command === 'preview') process.stdout.write(formatChanges(result as readonly Change[]));
  // What apply has to say it has said; its outputs are a command of their own.
  else if (result !== undefined && command !== 'apply') process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  return 0;
}

function formatChanges(changes: readonly Change[]): string {
  const lines = changes
    .filter(({ action }) => action !== 'keep')
    .flatMap(({ action, object, fields }) => [
      `${action.padEnd(6)} ${object}`,
      ...fields.map(({ path, from, to }) => `         ${path}: ${JSON.stringify(from)} -> ${JSON.stringify(to)}`),
    ]);
  const kept = changes.filter(({ action }) => action === 'keep').length;
  return [...lines, `${changes.length - kept} to change, ${kept} as declared`, ''].join('\n');
}

/** What a person reads: no stack trace, the cause and the next step. */
export function formatFailure(error: unknown): string {
  if (error instanceof ApplyError) {
    const rest = error.unfinished.length === 0 ? '' : `\nnot finished: ${error.unfinished.join(', ')}`;
    return `${error.stuck.map(formatExplanation).join('\n\n')}${rest}\n\nWhat works stays; apply again goes on from here.`;
  }
  if (error instanceof StuckError) return formatExplanation(error.explanation);
  return error instanceof Error ? error.message : String(error);
}

if (import.meta.main) {
  try {
    process.exitCode = await main();
  } catch (error) {
    process.stderr.write(`\n${formatFailure(error)}\n`);
    process.exitCode = 1;
  }
}
