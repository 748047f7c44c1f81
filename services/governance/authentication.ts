import { hash } from 'node:crypto';
import { tenantPattern, WorkloadKeysUnavailable, WorkloadRefused, type WorkloadVerifier } from '@somagent/kit';
import { decodeJwt, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose';
import { type Caller, platformTenant } from './caller.ts';
import { Problem } from './problem.ts';

/** What a token must say. */
export interface TokenRules {
  readonly issuer: string;
  readonly audience: string;
}

/** Verifies an API key. */
export interface ApiKeyVerifier {
  /**
   * @returns who it belongs to; null when there is no such key, or none that is valid now.
   * @throws Problem identity-unavailable.
   */
  verify(key: string): Promise<Caller | null>;
}

/** The kinds of credentials that a service admits; what is absent is refused. */
export interface Authentication {
  readonly tokens: TokenVerifier;
  readonly apiKeys?: ApiKeyVerifier;
  readonly workloads?: Pick<WorkloadVerifier, 'verify'>;
}

/** Asymmetric only: with HS256 a public key would pass as the secret. */
const algorithms = ['RS256', 'PS256', 'ES256', 'EdDSA'];
const clockSkewSeconds = 5;
const headerTypes = new Set(['jwt', 'at+jwt', 'application/at+jwt']);
const bearer = /^Bearer ([\w.~+/=-]+)$/i;
const apiKey = /^soma_[0-9A-Za-z]{22}_[0-9A-Za-z]{43}$/;
/** Much more than a token of ours has: longer ones are not worth a hash. */
const longestToken = 8192;

/**
 * Verifies the `Authorization` header of a request. Synchronous where the token was verified a moment ago.
 * @throws Problem token-missing, token-invalid, tenant-missing or identity-unavailable.
 */
export function authenticate(header: string | undefined, admitted: Authentication): Caller | Promise<Caller> {
  const token = header === undefined ? undefined : bearer.exec(header)?.[1];
  if (token === undefined) {
    throw new Problem('token-missing', 'send a header "Authorization: Bearer <token>"', {
      'www-authenticate': 'Bearer',
    });
  }
  if (token.length > longestToken) throw refused(`it is longer than ${longestToken} characters`);
  if (token.startsWith('soma_')) return callerOfKey(token, admitted.apiKeys);
  return admitted.tokens.recall(token) ?? verifyToken(token, admitted);
}

function verifyToken(token: string, { tokens, workloads }: Authentication): Promise<Caller> {
  return workloads !== undefined && claimsWorkload(token) ? callerOfWorkload(token, workloads) : tokens.verify(token);
}

async function callerOfKey(key: string, keys: ApiKeyVerifier | undefined): Promise<Caller> {
  if (keys === undefined) throw refused('API keys are not admitted here');
  const caller = apiKey.test(key) ? await keys.verify(key) : null;
  if (caller === null) throw refused('there is no such API key, or it has expired');
  return caller;
}

async function callerOfWorkload(token: string, workloads: Pick<WorkloadVerifier, 'verify'>): Promise<Caller> {
  const { subject } = await workloads.verify(`Bearer ${token}`).catch((error: unknown) => {
    if (error instanceof WorkloadKeysUnavailable) throw keysUnavailable();
    if (!(error instanceof WorkloadRefused)) throw error;
    throw error.status === 403 ? new Problem('forbidden', error.message) : refused(error.message);
  });
  const rest = { client: null, roles: [], teams: [], scopes: null, revocable: {} };
  return { kind: 'workload', tenant: platformTenant, subject, ...rest };
}

/** Whether a token says that it is a pod's. Unverified: it only decides whose keys verify it. */
function claimsWorkload(token: string): boolean {
  try {
    return decodeJwt(token).sub?.startsWith('system:serviceaccount:') ?? false;
  } catch {
    return false;
  }
}

interface Remembered {
  readonly caller: Caller;
  /** Milliseconds since the epoch. */
  readonly until: number;
}

/** Options of {@link TokenVerifier}. */
export interface TokenVerifierOptions {
  readonly keys: JWTVerifyGetKey;
  readonly rules: TokenRules;
  /**
   * Time for which a verified token needs no second verification, milliseconds. It ends with the token, and bounds
   * how long a token outlives the key that signed it. @default 30000
   */
  readonly memory?: number;
  /** Tokens remembered at once; the oldest is forgotten first. @default 10000 */
  readonly capacity?: number;
}

/**
 * Verifies access tokens against the keys of the issuer, and remembers for a moment, by hash, which it has verified: a
 * signature costs more than the rest of a request. Revocation is no matter of this memory: it is asked on each request.
 */
export class TokenVerifier {
  readonly #options: Required<TokenVerifierOptions>;
  readonly #verified = new Map<string, Remembered>();

  constructor(options: TokenVerifierOptions) {
    this.#options = { memory: 30_000, capacity: 10_000, ...options };
  }

  /** Whose token this is, if it was verified a moment ago. */
  recall(token: string): Caller | undefined {
    const found = this.#verified.get(digestOf(token));
    return found !== undefined && Date.now() < found.until ? found.caller : undefined;
  }

  /** @throws Problem token-invalid, tenant-missing or identity-unavailable. */
  async verify(token: string): Promise<Caller> {
    const { keys, rules, memory } = this.#options;
    const { payload, protectedHeader } = await verifySignature(token, keys, rules);
    if (!isCanonical(token)) throw refused('its signature is not written in base64url as the issuer writes it');
    if (!headerTypes.has((protectedHeader.typ ?? 'JWT').toLowerCase()))
      throw refused(`its type is ${protectedHeader.typ}`);
    // Keycloak signs ID and refresh tokens with the same keys; its access tokens say Bearer.
    const use = payload.typ;
    if (use !== undefined && use !== 'Bearer') throw refused('it is not an access token');
    const caller = callerOf(payload);
    const expiry = ((payload.exp ?? 0) + clockSkewSeconds) * 1000;
    this.#remember(token, { caller, until: Math.min(expiry, Date.now() + memory) });
    return caller;
  }

  #remember(token: string, entry: Remembered): void {
    const digest = digestOf(token);
    // Deleted first, so that the order of the map is the order of verification.
    this.#verified.delete(digest);
    this.#verified.set(digest, entry);
    if (this.#verified.size <= this.#options.capacity) return;
    const [oldest] = this.#verified.keys();
    if (oldest !== undefined) this.#verified.delete(oldest);
  }
}

/** Whether the signature is in the one canonical form: other letters for the same bytes would be a second token. */
function isCanonical(token: string): boolean {
  const signature = token.slice(token.lastIndexOf('.') + 1);
  return Buffer.from(signature, 'base64url').toString('base64url') === signature;
}

/** Tokens themselves are not kept: a dump of the memory shows none that is not in use. */
const digestOf = (token: string): string => hash('sha256', token, 'base64');

function callerOf(payload: JWTPayload): Caller {
  const { sub, azp, sid, jti, preferred_username: name } = payload;
  if (typeof sub !== 'string' || sub === '') throw refused('it has no subject');
  if (sub.startsWith('system:'))
    throw refused('its subject is that of a workload, which the issuer does not vouch for');
  const roles = namesOf(payload.roles);
  return {
    kind: typeof name === 'string' && name.startsWith('service-account-') ? 'service-account' : 'user',
    tenant: tenantOf(payload.tenant, roles),
    subject: sub,
    client: typeof azp === 'string' ? azp : null,
    roles,
    teams: namesOf(payload.teams),
    scopes: null,
    revocable: { ...(typeof sid === 'string' && { sid }), ...(typeof jti === 'string' && { jti }) },
  };
}

function tenantOf(claim: unknown, roles: readonly string[]): string {
  if (claim === undefined && roles.includes('operator')) return platformTenant;
  if (typeof claim !== 'string' || !tenantPattern.test(claim) || claim === platformTenant) {
    throw new Problem('tenant-missing', 'the token has no usable claim "tenant": ask the administrator of the realm');
  }
  return claim;
}

const namesOf = (claim: unknown): readonly string[] =>
  Array.isArray(claim) ? claim.filter((name): name is string => typeof name === 'string') : [];

async function verifySignature(token: string, keys: JWTVerifyGetKey, rules: TokenRules) {
  try {
    return await jwtVerify(token, keys, {
      ...rules,
      algorithms,
      clockTolerance: clockSkewSeconds,
      requiredClaims: ['exp', 'sub'],
    });
  } catch (error) {
    throw refusalOf(error);
  }
}

/** Says which rule the token breaks, never what is in it. */
function refusalOf(error: unknown): Problem {
  if (error instanceof errors.JWTExpired) return refused('it has expired');
  if (error instanceof errors.JWTClaimValidationFailed) return refused(`its claim "${error.claim}" is not accepted`);
  if (error instanceof errors.JWSSignatureVerificationFailed) return refused('its signature is wrong');
  if (error instanceof errors.JOSEAlgNotAllowed) return refused('its algorithm is not accepted');
  if (error instanceof errors.JWKSNoMatchingKey) return refused('its key is unknown');
  if (error instanceof errors.JWKSTimeout || !(error instanceof errors.JOSEError)) return keysUnavailable();
  return refused('it is not a signed JWT');
}

const keysUnavailable = () =>
  new Problem('identity-unavailable', 'the keys of the issuer cannot be fetched: try again', { 'retry-after': '5' });

const refused = (why: string) =>
  new Problem('token-invalid', `the token is refused: ${why}`, {
    'www-authenticate': `Bearer error="invalid_token", error_description="${why.replaceAll('"', "'")}"`,
  });
