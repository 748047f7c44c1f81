import { readFileSync } from 'node:fs';
import type { Cluster } from './cluster.ts';
import { CliFailure, exitCodes } from './failure.ts';
import { LoginStore } from './login-store.ts';
import { knownStacks, type Outputs, readOutputs } from './outputs.ts';
import { patienceOf } from './patience.ts';

/** Options that every command about a running platform has; each also has an environment variable. */
export interface TargetOptions {
  readonly stack: string;
  readonly gateway?: string;
  readonly issuer?: string;
  readonly audit?: string;
  readonly accounts?: string;
  readonly caFile?: string;
  readonly client?: string;
  readonly clientSecretFile?: string;
  /** Acts as the tenant's agent, also while a person is signed in. */
  readonly agent?: boolean;
  readonly region?: string;
  readonly kubeconfig?: string;
  readonly context?: string;
}

/** A client that signs in with its own secret. */
export interface AgentIdentity {
  readonly clientId: string;
  readonly clientSecret: string;
}

/** The person who has signed in on this machine. */
export interface PersonIdentity {
  readonly store: LoginStore;
}

/** Whether it is a person who asks. */
export const isPerson = (identity: AgentIdentity | PersonIdentity): identity is PersonIdentity => 'store' in identity;

/** Where the platform is. */
export interface Platform {
  readonly gatewayUrl: string;
  readonly issuerUrl: string;
  /** PEM of the authority to trust besides the system's; undefined: the system's are enough. */
  readonly ca: string | undefined;
  /** How long a failure of Keycloak that may pass is waited for, seconds. */
  readonly patience: number;
}

/** Where the platform is and who asks. */
export interface Target extends Platform {
  readonly identity: AgentIdentity | PersonIdentity;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Everything that is looked up beyond the command line. */
export interface Surroundings {
  readonly root: string;
  readonly env: Environment;
  /** The cluster behind the kubeconfig. Called only when a Secret has to be read. */
  readonly cluster: () => Promise<Cluster>;
}

/** Where a command finds the platform: flags, then environment, then the stack's outputs and the cluster's Secrets. */
export async function resolvePlatform(
  options: TargetOptions,
  { root, env: given, cluster }: Surroundings,
): Promise<Platform> {
  const env = withoutEmpty(given);
  const outputs = readOutputs(root, options.stack);
  const gatewayUrl = options.gateway ?? env.SOMA_GATEWAY_URL ?? outputs?.gatewayUrl;
  const issuerUrl = options.issuer ?? env.SOMA_ISSUER_URL ?? outputs?.issuerUrl;
  if (gatewayUrl === undefined || issuerUrl === undefined) throw noPlatform(root, options.stack);
  return {
    gatewayUrl: gatewayUrl.replace(/\/$/, ''),
    issuerUrl: issuerUrl.replace(/\/$/, ''),
    ca: await resolveAuthority(options, env, cluster, namespaceOf(options, outputs)),
    patience: patienceOf(env),
  };
}

/** Where the audit service is. @throws CliFailure when nobody says it. */
export const resolveAudit = (options: TargetOptions, surroundings: Pick<Surroundings, 'root' | 'env'>): string =>
  resolveService('audit', options, surroundings);

/** Where the identity service is. @throws CliFailure when nobody says it. */
export const resolveAccounts = (options: TargetOptions, surroundings: Pick<Surroundings, 'root' | 'env'>): string =>
  resolveService('accounts', options, surroundings);

const serviceNames = { audit: 'audit service', accounts: 'identity service' } as const;

function resolveService(
  service: keyof typeof serviceNames,
  options: TargetOptions,
  { root, env }: Pick<Surroundings, 'root' | 'env'>,
): string {
  const variable = `SOMA_${service.toUpperCase()}_URL`;
  const url = options[service] ?? withoutEmpty(env)[variable] ?? readOutputs(root, options.stack)?.[`${service}Url`];
  if (url !== undefined) return url.replace(/\/$/, '');
  throw new CliFailure(
    `stack ${options.stack} does not say where its ${serviceNames[service]} is`,
    `give its address: --${service} <url> or ${variable}`,
    exitCodes.usage,
  );
}

/** The platform and who asks: a client that is named, else the person who is signed in, else the tenant's agent. */
export async function resolveTarget(options: TargetOptions, surroundings: Surroundings): Promise<Target> {
  const { root, cluster } = surroundings;
  const env = withoutEmpty(surroundings.env);
  const platform = await resolvePlatform(options, surroundings);
  const person = personOf(options, env, platform.issuerUrl);
  if (person !== undefined) return { ...platform, identity: person };
  const outputs = readOutputs(root, options.stack);
  const identity = await resolveAgent(options, env, outputs, cluster, namespaceOf(options, outputs));
  return { ...platform, identity };
}

const namespaceOf = (options: TargetOptions, outputs: Outputs | undefined): string =>
  `${regionOf(options, outputs)}-services`;

function personOf(options: TargetOptions, env: Environment, issuerUrl: string): PersonIdentity | undefined {
  if (options.agent === true || (options.client ?? env.SOMA_CLIENT_ID) !== undefined) return undefined;
  const store = new LoginStore(env);
  return store.read(issuerUrl) === undefined ? undefined : { store };
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

async function resolveAgent(
  options: TargetOptions,
  env: Environment,
  outputs: Outputs | undefined,
  cluster: () => Promise<Cluster>,
  namespace: string,
): Promise<AgentIdentity> {
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
