import { benchmark } from './bench.ts';
import { layout } from './layout.ts';
import { startCluster } from './node/start.ts';
import { clusterStatus, formatStatus } from './node/status.ts';
import { stopCluster } from './node/stop.ts';
import { installPackages } from './packages.ts';
import { formatProblems, machineProbes, preflight } from './preflight.ts';
import { type Progress, startProgress } from './progress.ts';
import { buildToolchain } from './toolchain.ts';

const help = `A real Kubernetes for a machine that has none.

  preflight         says what is in the way, and how to mend it; changes nothing
  install-packages  installs the Debian packages that are missing
  toolchain         builds the programs that are not in the cache
  up                starts the cluster, or what is missing of it
  down              stops it and deletes everything but the caches  (--keep-data: keeps volumes and objects too)
  status            says what runs, and why something does not      (--json)
  bench             measures command → API, DNS and app pod answering; takes the cluster down  (--runs=3, --json)
`;

/** Refuses when something is in the way. */
async function check(say: Progress): Promise<void> {
  const problems = await preflight(machineProbes(layout()));
  if (problems.length > 0) throw new Error(`the local cluster can't run here yet:\n${formatProblems(problems)}`);
  say('preflight: nothing is in the way');
}

const commands: Readonly<Record<string, (say: Progress, flags: ReadonlySet<string>) => Promise<void>>> = {
  preflight: check,
  'install-packages': installPackages,
  toolchain: (say) => buildToolchain(say),
  up: async (say) => {
    await check(say);
    await startCluster(layout(), say);
    say(`the cluster is up: KUBECONFIG=${layout().kubeconfig}`);
  },
  down: (say, flags) => stopCluster(layout(), say, { keepData: flags.has('--keep-data') }),
  status: async (_say, flags) => {
    const status = await clusterStatus(layout());
    process.stdout.write(flags.has('--json') ? `${JSON.stringify(status)}\n` : formatStatus(status));
    if (status.state !== 'healthy') process.exitCode = 1;
  },
  bench: (say, flags) => benchmark(layout(), say, flags),
};

async function main([name = 'help', ...flags]: readonly string[]): Promise<void> {
  const command = commands[name];
  if (!command) {
    process.stderr.write(help);
    process.exitCode = name === 'help' || name === '--help' ? 0 : 2;
    return;
  }
  const context = process.env.SOMA_CONTEXT;
  if (context && name !== 'down' && name !== 'status') {
    process.stderr.write(`SOMA_CONTEXT is set: the cluster of context "${context}" is used, nothing is done here\n`);
    return;
  }
  await command(startProgress(), new Set(flags));
}

await main(process.argv.slice(2)).catch((error: Error) => {
  process.stderr.write(`error: ${error.message}\n`);
  process.exitCode = 1;
});
