import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import * as oidc from 'openid-client';
import { CliFailure, exitCodes, reasonOf } from './failure.ts';
import { patiently } from './patience.ts';

/** Keycloak, as people and agents sign in there. */
export interface Issuer {
  readonly url: string;
  /** PEM of the authority to trust besides the system's. */
  readonly ca: string | undefined;
  /** How long a failure that may pass is waited for, seconds. */
  readonly patience: number;
  readonly signal: AbortSignal;
}

/** The client in which people sign in by this command. It has no secret. */
export const cliClient = 'somagent-cli';

/** Reads what the issuer says about itself. A client without a secret is {@link cliClient}. */
export function discover(issuer: Issuer, clientId = cliClient, secret?: string): Promise<oidc.Configuration> {
  if (issuer.ca !== undefined) setDefaultCACertificates([...getCACertificates('default'), issuer.ca]);
  const authentication = secret === undefined ? oidc.None() : oidc.ClientSecretBasic(secret);
  return asking(issuer, () => oidc.discovery(new URL(issuer.url), clientId, undefined, authentication));
}

/**
 * Asks the issuer, again while it fails in a way that may pass.
 * @throws CliFailure when it cannot be reached or failed; an answer that refuses is thrown as it is
 */
export async function asking<T>(issuer: Issuer, question: () => Promise<T>): Promise<T> {
  try {
    return await patiently(issuer.patience, issuer.signal, mayPass, question);
  } catch (error) {
    const status = statusOf(error);
    if (status !== undefined && status < 500) throw error;
    if (status !== undefined) {
      throw new CliFailure(`Keycloak at ${issuer.url} failed: status ${status}`, 'soma logs keycloak');
    }
    if (codeOf(error) === undefined) throw error;
    throw unreachable(issuer, error);
  }
}

function unreachable({ url }: Issuer, error: unknown): CliFailure {
  const reason = reasonOf(error);
  const next = /certificate/i.test(reason)
    ? 'give the authority that signed it: --ca-file <file> or SOMA_CA_FILE'
    : 'soma status shows what is down; soma up brings it back';
  return new CliFailure(`Keycloak at ${url} cannot be reached: ${reason}`, next, exitCodes.unreachable);
}

/** Lost connections and the issuer's own failures pass; a certificate that is not trusted and a refusal do not. */
function mayPass(error: unknown): boolean {
  const status = statusOf(error);
  if (status !== undefined) return status >= 500;
  return /^(ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|EAI_AGAIN|UND_ERR)/.test(codeOf(error) ?? '');
}

/** Status of the answer that an error is about. */
export function statusOf(error: unknown): number | undefined {
  if (error instanceof oidc.ResponseBodyError) return error.status;
  if (error instanceof Response) return error.status;
  return error instanceof Error && error.cause !== undefined ? statusOf(error.cause) : undefined;
}

/** The innermost code of a system error. */
function codeOf(error: unknown): string | undefined {
  if (error instanceof AggregateError && error.errors.length > 0) return codeOf(error.errors[0]);
  if (!(error instanceof Error)) return undefined;
  const inner = codeOf(error.cause);
  if (inner !== undefined) return inner;
  const own = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  return own?.startsWith('OAUTH') ? undefined : own;
}

/** Why the issuer refused, in its own words. */
export function refusalOf(error: unknown): string {
  if (error instanceof oidc.ResponseBodyError) return `${error.error_description ?? error.error} (${error.status})`;
  if (error instanceof oidc.AuthorizationResponseError) return error.error_description ?? error.error;
  return reasonOf(error);
}
