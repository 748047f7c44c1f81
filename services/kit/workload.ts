import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRemoteJWKSet, customFetch, errors, jwtVerify, type RemoteJWKSet } from 'jose';
import { z } from 'zod';
import { httpsUrl, text } from './config.ts';
import { type Logger, reasonOf } from './log.ts';
import { fetchTrusting } from './tls.ts';

/** The token by which this pod says who it is. The kubelet renews it: read it for each use. */
export const workloadToken = (path: string): string => readFileSync(path, 'utf8').trim();

/** Where the pod finds its token for a service. */
export const workloadTokenPath = (target: string): string => `/var/run/secrets/somagent/${target}/token`;

/** The variables of a service that admits workloads. */
export const workloadVariables = {
  WORKLOAD_AUDIENCE: text('the audience that the token of a workload must name, e.g. somagent-identity'),
  WORKLOAD_CALLERS: z
    .string()
    .transform((value) => value.split(',').map((caller) => caller.trim()))
    .pipe(z.array(z.string().regex(subjectPattern(), 'must be system:serviceaccount:<namespace>:<name>')))
    .describe('the service accounts that may call, system:serviceaccount:<namespace>:<name>, by commas'),
  KUBERNETES_URL: httpsUrl('the address of the API server').default('https://kubernetes.default.svc'),
  KUBERNETES_DIR: text('the directory with token and ca.crt for the API server').default(
    '/var/run/secrets/somagent/kubernetes',
  ),
};

/** Who called: a pod of this cluster. */
export interface Workload {
  /** `system:serviceaccount:<namespace>:<name>`. */
  readonly subject: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Name of the pod that the token is bound to. */
  readonly pod: string | null;
}

/** The token of a workload is not accepted; the message says which rule it breaks, never what is in it. */
export class WorkloadRefused extends Error {
  /** 401 when nobody knows who calls, 403 when the caller is known and may not. */
  readonly status: 401 | 403;

  constructor(why: string, status: 401 | 403 = 401) {
    super(`the workload's token is refused: ${why}`);
    this.name = 'WorkloadRefused';
    this.status = status;
  }
}

/** The keys of the cluster are not known yet or can't be fetched: the token is not to blame. */
export class WorkloadKeysUnavailable extends Error {
  constructor(reason: string) {
    super(`the keys of the cluster cannot be fetched: ${reason}`);
    this.name = 'WorkloadKeysUnavailable';
  }
}

/** Options of {@link WorkloadVerifier}. */
export interface WorkloadVerifierOptions {
  /** What tokens must name as audience, such as `somagent-identity`. */
  readonly audience: string;
  /** Subjects that may call; nobody else. */
  readonly callers: readonly string[];
  /** Address of the API server. */
  readonly url: string;
  /** Directory with this pod's own `token` for the API server and its authority `ca.crt`. */
  readonly directory: string;
  readonly log: Logger;
  /** Time between refreshes of the keys, milliseconds. @default 300000 */
  readonly interval?: number;
}

/** Asymmetric only, as the API server signs: RSA or ECDSA, by its configuration. */
const algorithms = ['RS256', 'ES256', 'ES384', 'ES512'];
const clockSkewSeconds = 5;

/**
 * Admits pods of this cluster by their projected ServiceAccount tokens, in process: signature by the cluster's own
 * keys, issuer, audience, time, and a list of who may call. A pod that is gone keeps its token for 10 minutes at most.
 * Source: https://kubernetes.io/docs/concepts/security/service-accounts/#authenticating-credentials
 */
export class WorkloadVerifier {
  readonly #options: WorkloadVerifierOptions;
  readonly #callers: ReadonlySet<string>;
  readonly #fetch: typeof fetch;
  readonly #keys: RemoteJWKSet;
  #issuer: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: WorkloadVerifierOptions) {
    this.#options = options;
    this.#callers = new Set(options.callers);
    this.#fetch = fetchTrusting(join(options.directory, 'ca.crt'));
    this.#keys = createRemoteJWKSet(new URL(`${options.url}/openid/v1/jwks`), {
      cacheMaxAge: Number.POSITIVE_INFINITY,
      cooldownDuration: 10_000,
      timeoutDuration: 3000,
      [customFetch]: (url, init) => this.#ask(url, init.signal),
    });
  }

  /** Whether the issuer and its keys have been fetched at least once. */
  get known(): boolean {
    return this.#issuer !== undefined && this.#keys.jwks() !== undefined;
  }

  /** Fetches issuer and keys now, then regularly; sooner until the first success. */
  async start(): Promise<void> {
    const { log, url, interval = 300_000 } = this.#options;
    try {
      await this.#refresh();
    } catch (error) {
      log.warn({ url, reason: reasonOf(error), known: this.known }, 'the keys of the cluster cannot be fetched');
    }
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.start(), this.known ? interval : 1000);
    this.#timer.unref();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /**
   * Verifies the `Authorization` header of a request.
   * @throws WorkloadRefused, WorkloadKeysUnavailable
   */
  async verify(header: string | undefined): Promise<Workload> {
    const token = /^Bearer ([\w-]+\.[\w-]+\.[\w-]+)$/i.exec(header ?? '')?.[1];
    if (token === undefined) throw new WorkloadRefused('there is no "Authorization: Bearer <token>"');
    if (this.#issuer === undefined) throw new WorkloadKeysUnavailable('the API server has not answered yet');
    const payload = await this.#payload(token, this.#issuer);
    const workload = workloadOf(payload);
    if (!this.#callers.has(workload.subject)) throw new WorkloadRefused(`${workload.subject} may not call`, 403);
    return workload;
  }

  async #payload(token: string, issuer: string): Promise<unknown> {
    try {
      const { payload } = await jwtVerify(token, this.#keys, {
        issuer,
        audience: this.#options.audience,
        algorithms,
        clockTolerance: clockSkewSeconds,
        requiredClaims: ['exp', 'iat', 'sub'],
      });
      return payload;
    } catch (error) {
      throw refusalOf(error);
    }
  }

  async #refresh(): Promise<void> {
    const response = await this.#ask(
      `${this.#options.url}/.well-known/openid-configuration`,
      AbortSignal.timeout(3000),
    );
    this.#issuer = discovery.parse(await response.json()).issuer;
    await this.#keys.reload();
  }

  /** The API server shows its keys to ServiceAccounts only. */
  async #ask(url: string, signal: AbortSignal): Promise<Response> {
    const authorization = `Bearer ${workloadToken(join(this.#options.directory, 'token'))}`;
    const response = await this.#fetch(url, { headers: { authorization }, signal });
    if (response.ok) return response;
    throw new Error(`the API server answered ${new URL(url).pathname} with status ${response.status}`);
  }
}

const discovery = z.object({ issuer: z.string().min(1) });

const claims = z.object({
  sub: z.string(),
  'kubernetes.io': z.object({
    namespace: z.string(),
    serviceaccount: z.object({ name: z.string() }),
    pod: z.object({ name: z.string() }).optional(),
  }),
});

function subjectPattern(): RegExp {
  return /^system:serviceaccount:([a-z0-9-]+):([a-z0-9.-]+)$/;
}

/** The subject and what the API server says beside it must be the same account. */
function workloadOf(payload: unknown): Workload {
  const parsed = claims.safeParse(payload);
  if (!parsed.success) throw new WorkloadRefused('it is not the token of a ServiceAccount');
  const { sub, 'kubernetes.io': account } = parsed.data;
  const [, namespace, serviceAccount] = subjectPattern().exec(sub) ?? [];
  if (namespace !== account.namespace || serviceAccount !== account.serviceaccount.name) {
    throw new WorkloadRefused('its subject is another one than its account');
  }
  return { subject: sub, namespace, serviceAccount, pod: account.pod?.name ?? null };
}

function refusalOf(error: unknown): Error {
  if (error instanceof errors.JWTExpired) return new WorkloadRefused('it has expired');
  if (error instanceof errors.JWTClaimValidationFailed) {
    return new WorkloadRefused(`its claim "${error.claim}" is not accepted`);
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) return new WorkloadRefused('its signature is wrong');
  if (error instanceof errors.JOSEAlgNotAllowed) return new WorkloadRefused('its algorithm is not accepted');
  if (error instanceof errors.JWKSNoMatchingKey) return new WorkloadRefused('its key is unknown');
  // jose has no class of its own for an answer that is no key set.
  const away = !(error instanceof errors.JOSEError) || ['ERR_JWKS_TIMEOUT', 'ERR_JOSE_GENERIC'].includes(error.code);
  return away ? new WorkloadKeysUnavailable(reasonOf(error)) : new WorkloadRefused('it is not a signed JWT');
}
