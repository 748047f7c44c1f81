import { fetchTrusting, type Logger, messageOf } from '@somagent/kit';
import { createRemoteJWKSet, customFetch, errors, type JWTVerifyGetKey, jwtVerify, type RemoteJWKSet } from 'jose';
import { Problem } from './problem.ts';

/** Who sends a request, from a verified token and nothing else. */
export interface Caller {
  readonly tenant: string;
  /** `sub` of the token. */
  readonly subject: string;
  /** `azp` of the token: the client that obtained it. */
  readonly client: string | null;
}

/** What a token must say. */
export interface TokenRules {
  readonly issuer: string;
  readonly audience: string;
}

/** Asymmetric only: with HS256 a public key would pass as the secret. */
const algorithms = ['RS256', 'PS256', 'ES256', 'EdDSA'];
const clockSkewSeconds = 5;
const tenantPattern = /^[a-z0-9][a-z0-9-]{0,62}$/;
const headerTypes = new Set(['jwt', 'at+jwt', 'application/at+jwt']);

/**
 * Verifies the `Authorization` header of a request.
 * @throws Problem token-missing, token-invalid, tenant-missing or identity-unavailable.
 */
export async function authenticate(
  header: string | undefined,
  keys: JWTVerifyGetKey,
  rules: TokenRules,
): Promise<Caller> {
  const token = /^Bearer ([\w.~+/=-]+)$/i.exec(header ?? '')?.[1];
  if (token === undefined) {
    throw new Problem('token-missing', 'send a header "Authorization: Bearer <token>"', {
      'www-authenticate': 'Bearer',
    });
  }
  const { payload, protectedHeader } = await verify(token, keys, rules);
  if (!headerTypes.has((protectedHeader.typ ?? 'JWT').toLowerCase()))
    throw refused(`its type is ${protectedHeader.typ}`);
  // Keycloak signs ID and refresh tokens with the same keys; its access tokens say Bearer.
  const use = payload.typ;
  if (use !== undefined && use !== 'Bearer') throw refused('it is not an access token');
  const { tenant, sub, azp } = payload;
  if (typeof sub !== 'string' || sub === '') throw refused('it has no subject');
  if (typeof tenant !== 'string' || !tenantPattern.test(tenant)) {
    throw new Problem('tenant-missing', 'the token has no usable claim "tenant": ask the administrator of the realm');
  }
  return { tenant, subject: sub, client: typeof azp === 'string' ? azp : null };
}

async function verify(token: string, keys: JWTVerifyGetKey, rules: TokenRules) {
  try {
    return await jwtVerify(token, keys, {
      ...rules,
      algorithms,
      clockTolerance: clockSkewSeconds,
      requiredClaims: ['exp', 'sub'],
    });
  } catch (error) {
    throw problemOf(error);
  }
}

/** Says which rule the token breaks, never what is in it. */
function problemOf(error: unknown): Problem {
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

/** Options of {@link IssuerKeys}. */
export interface IssuerKeysOptions {
  readonly url: string;
  readonly caFile: string;
  readonly log: Logger;
  /** Time between refreshes of the keys, milliseconds. @default 300000 */
  readonly interval?: number;
}

/**
 * The public keys of the issuer. Fetched once before the gateway is ready and refreshed in the background, never on
 * the way of a request; while the issuer is away the last keys stay in use.
 */
export class IssuerKeys {
  readonly keys: RemoteJWKSet;
  readonly #options: IssuerKeysOptions;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: IssuerKeysOptions) {
    this.#options = options;
    this.keys = createRemoteJWKSet(new URL(options.url), {
      cacheMaxAge: Number.POSITIVE_INFINITY,
      cooldownDuration: 10_000,
      timeoutDuration: 3000,
      [customFetch]: fetchTrusting(options.caFile),
    });
  }

  /** Whether keys have been fetched at least once. */
  get known(): boolean {
    return this.keys.jwks() !== undefined;
  }

  /** Fetches now, then regularly; sooner until the first success. */
  async start(): Promise<void> {
    const { log, url, interval = 300_000 } = this.#options;
    try {
      await this.keys.reload();
    } catch (error) {
      log.warn({ url, reason: messageOf(error), known: this.known }, 'the keys of the issuer cannot be fetched');
    }
    this.#timer = setTimeout(() => void this.start(), this.known ? interval : 1000);
    this.#timer.unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
