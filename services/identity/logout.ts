import { Problem } from '@somagent/governance';
import { errors, type JWTVerifyGetKey, jwtVerify } from 'jose';
import { z } from 'zod';

/** What a logout token must say. */
export interface LogoutRules {
  readonly issuer: string;
  /** Clients in which people sign in: the token names one of them as audience. */
  readonly clients: readonly string[];
  readonly keys: JWTVerifyGetKey;
}

/** The login session that has ended. */
export interface EndedSession {
  readonly sid: string;
  readonly subject: string | null;
}

const event = 'http://schemas.openid.net/event/backchannel-logout';
/** A logout token is used at once: an old one is a replay. */
const longestAge = '2 minutes';
const clockSkewSeconds = 5;
const largestBody = 16 * 1024;

const claims = z.object({
  sid: z.string().min(1).max(200),
  sub: z.string().min(1).optional(),
  jti: z.string().min(1),
  events: z.looseObject({ [event]: z.object({}) }),
  // A token with a nonce is an ID token: it was issued to somebody else and for another purpose.
  nonce: z.never().optional(),
});

/**
 * Verifies a logout token.
 * Source: https://openid.net/specs/openid-connect-backchannel-1_0.html, section 2.6
 * @throws Problem token-missing, token-invalid, identity-unavailable.
 */
export async function verifyLogout(token: string, rules: LogoutRules): Promise<EndedSession> {
  const { payload } = await verify(token, rules);
  const parsed = claims.safeParse(payload);
  if (!parsed.success) throw refused(`its claim "${String(parsed.error.issues[0]?.path[0])}" is not accepted`);
  const { sid, sub } = parsed.data;
  return { sid, subject: sub ?? null };
}

/** Reads the token from the body of the request: a form, as the specification has it. @throws Problem. */
export async function logoutTokenOf(request: Request): Promise<string> {
  const type = request.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase();
  if (type === undefined) throw new Problem('token-missing', 'send a form with the field logout_token');
  if (type !== 'application/x-www-form-urlencoded') {
    throw new Problem('media-type', `content-type is ${type}: send application/x-www-form-urlencoded`);
  }
  if (!(Number(request.headers.get('content-length')) <= largestBody) || !request.headers.has('content-length')) {
    throw new Problem('body-too-large', `the length must be said and be at most ${largestBody} bytes`);
  }
  const token = new URLSearchParams(await request.text()).get('logout_token');
  if (token === null || token === '') throw new Problem('token-missing', 'the form has no field logout_token');
  return token;
}

async function verify(token: string, { issuer, clients, keys }: LogoutRules) {
  try {
    return await jwtVerify(token, keys, {
      issuer,
      audience: [...clients],
      typ: 'logout+jwt',
      algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA'],
      clockTolerance: clockSkewSeconds,
      maxTokenAge: longestAge,
      requiredClaims: ['iat', 'exp', 'jti', 'events'],
    });
  } catch (error) {
    throw refusalOf(error);
  }
}

/** Says which rule the token breaks, never what is in it. */
function refusalOf(error: unknown): Problem {
  if (error instanceof errors.JWTExpired) return refused('it has expired or is too old');
  if (error instanceof errors.JWTClaimValidationFailed) return refused(`its claim "${error.claim}" is not accepted`);
  if (error instanceof errors.JWSSignatureVerificationFailed) return refused('its signature is wrong');
  if (error instanceof errors.JOSEAlgNotAllowed) return refused('its algorithm is not accepted');
  if (error instanceof errors.JWKSNoMatchingKey) return refused('its key is unknown');
  const away = !(error instanceof errors.JOSEError) || ['ERR_JWKS_TIMEOUT', 'ERR_JOSE_GENERIC'].includes(error.code);
  if (!away) return refused('it is not a signed JWT');
  return new Problem('identity-unavailable', 'the keys of the issuer cannot be fetched: try again', {
    'retry-after': '5',
  });
}

const refused = (why: string) => new Problem('token-invalid', `the logout token is refused: ${why}`);
