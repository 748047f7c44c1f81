import { readFileSync } from 'node:fs';
import type { Cluster } from './cluster.ts';
import { CliFailure, exitCodes } from './failure.ts';
import { knownStacks, type Outputs, readOutputs } from './outputs.ts';

/** Options that every command about a running platform has; each also has an environment variable. */
export interface TargetOptions {
  readonly stack: string;
  readonly gateway?: string;
  readonly issuer?: string;
  readonly caFile?: string;
  readonly client?: string;
  readonly clientSecretFile?: string;
  readonly region?: string;
  readonly kubeconfig?: string;
  readonly context?: string;
}

export interface Identity {
  readonly clientId: string;
  readonly clientSecret: string;
}

/** Where the platform is and who asks. */
export interface Target {
  readonly gatewayUrl: string;
  readonly issuerUrl: string;
  /** PEM of the authority to trust besides the system's; undefined: the system's are enough. */
  readonly ca: string | undefined;
  readonly identity: Identity;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Everything that is looked up beyond the command line. */
export interface Surroundings {
  readonly root: string;
  readonly env: Environment;
  /** The cluster behind the kubeconfig. Called only when a Secret has to be read. */
  readonly cluster: () => Promise<Cluster>;
}

/** Resolves flags, then environment, then the stack's outputs and the cluster's Secrets. */
export async function resolveTarget(
  options: TargetOptions,
  { root, env: given, cluster }: Surroundings,
): Promise<Target> {
  const env = withoutEmpty(given);
  const outputs = readOutputs(root, options.stack);
  const gatewayUrl = options.gateway ?? env.SOMA_GATEWAY_URL ?? outputs?.gatewayUrl;
  const issuerUrl = options.issuer ?? env.SOMA_ISSUER_URL ?? outputs?.issuerUrl;
  if (gatewayUrl === undefined || issuerUrl === undefined) throw noPlatform(root, options.stack);
  const namespace = `${regionOf(options, outputs)}-services`;
  return {
    gatewayUrl: gatewayUrl.replace(/\/$/, ''),
    issuerUrl: issuerUrl.replace(/\/$/, ''),
    identity: await resolveIdentity(options, env, outputs, cluster, namespace),
    ca: await resolveAuthority(options, env, cluster, namespace),
  };
}

/** An empty variable means the same as none: that is how shells and CI unset them. */
function withoutEmpty(env: Environment): Environment {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ''));
}

/** The region that a command is about: the one asked for, else the stack's first. */
function regionOf(options: TargetOptions, outputs: Outputs | undefined): string {
  const regions = Object.keys(outputs?.regions ?? {});
  const region = options.region ?? regions[0] ?? 'local';
  if (options.region !== undefined && regions.length > 0 && !regions.includes(options.region)) {
    throw new CliFailure(
      `no region "${options.region}" in stack ${options.stack}`,
      `use one of: ${regions.join(', ')}`,
      exitCodes.usage,
    );
  }
  return region;
}

function noPlatform(root: string, stack: string): CliFailure {
  const others = knownStacks(root).filter((name) => name !== stack);
  const hint = others.length > 0 ? `, or name another stack: --stack ${others.join(' | ')}` : '';
  return new CliFailure(
    `nothing is known about stack ${stack}: no .soma/outputs.${stack}.json, --gateway or --issuer`,
    `soma up --stack ${stack}${hint}`,
    exitCodes.usage,
  );
}

async function resolveIdentity(
  options: TargetOptions,
  env: Environment,
  outputs: Outputs | undefined,
  cluster: () => Promise<Cluster>,
  namespace: string,
): Promise<Identity> {
  const clientId = options.client ?? env.SOMA_CLIENT_ID ?? outputs?.clients[0];
  if (clientId === undefined) {
    throw new CliFailure('no client to sign in as', 'name one: --client <id> or SOMA_CLIENT_ID', exitCodes.usage);
  }
  if (options.clientSecretFile !== undefined) {
    return { clientId, clientSecret: readText(options.clientSecretFile, '--client-secret-file') };
  }
  const fromEnv = env.SOMA_CLIENT_SECRET;
  if (fromEnv !== undefined) return { clientId, clientSecret: fromEnv };
  const secret = await (await cluster()).secret(namespace, `keycloak-client-${clientId}`);
  const clientSecret = secret.password;
  if (clientSecret !== undefined) return { clientId, clientSecret };
  throw new CliFailure(`Secret ${namespace}/keycloak-client-${clientId} has no key password`, 'soma status');
}

async function resolveAuthority(
  options: TargetOptions,
  env: Environment,
  cluster: () => Promise<Cluster>,
  namespace: string,
): Promise<string | undefined> {
  const file = options.caFile ?? env.SOMA_CA_FILE;
  if (file !== undefined) return readText(file, '--ca-file');
  // A gateway and an issuer that were both given by hand need no cluster: the system's authorities are used.
  const byHand = (options.gateway ?? env.SOMA_GATEWAY_URL) !== undefined;
  if (byHand && (options.issuer ?? env.SOMA_ISSUER_URL) !== undefined) return undefined;
  return (await (await cluster()).secret(namespace, 'region-ca-cert'))['ca.crt'];
}

function readText(path: string, flag: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw new CliFailure(
      `${flag}: cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`,
      'give a file that exists and that you may read',
      exitCodes.usage,
    );
  }
}
