import { count, httpsUrl, type Logger, text } from '@somagent/kit';
import { TokenVerifier } from './authentication.ts';
import { IssuerKeys } from './issuer-keys.ts';
import type { Limit } from './quota.ts';

/** The variables of a service that admits people and agents by their tokens. */
export const userTokenVariables = {
  OIDC_ISSUER: httpsUrl('the issuer in the tokens, e.g. https://localhost:8444/realms/somagent'),
  OIDC_JWKS_URL: httpsUrl('the address of the public keys of the issuer'),
  OIDC_CA_FILE: text('the PEM file of the authority that signed the certificate of the issuer'),
  OIDC_AUDIENCE: text('the audience that a token must name').default('somagent-gateway'),
};

/** Values of {@link userTokenVariables}. */
export type UserTokenConfig = { readonly [Name in keyof typeof userTokenVariables]: string };

/** The keys of the issuer and who verifies with them; call `start()` of the keys. */
export function userTokens(config: UserTokenConfig, log: Logger) {
  const issuer = new IssuerKeys({ url: config.OIDC_JWKS_URL, caFile: config.OIDC_CA_FILE, log });
  const rules = { issuer: config.OIDC_ISSUER, audience: config.OIDC_AUDIENCE };
  return { issuer, tokens: new TokenVerifier({ keys: issuer.keys, rules }) };
}

/** The variables of the limits of a service. */
export const quotaVariables = {
  RATE_LIMIT_PER_MINUTE: count('the requests that one subject of a tenant may send in a minute').default(1200),
  TENANT_RATE_LIMIT_PER_MINUTE: count('the requests that a whole tenant may send in a minute').default(12_000),
  TENANT_QUOTA_PER_DAY: count('the requests that a whole tenant may send in a day').default(1_000_000),
};

/** Values of {@link quotaVariables}. */
export type QuotaConfig = { readonly [Name in keyof typeof quotaVariables]: number };

/** The limits of a service by its configuration. @param service part of their names: each service counts its own. */
export const limitsOf = (service: string, config: QuotaConfig): readonly Limit[] => [
  { name: `${service}-subject-minute`, per: 'subject', windowSeconds: 60, allowed: config.RATE_LIMIT_PER_MINUTE },
  { name: `${service}-tenant-minute`, per: 'tenant', windowSeconds: 60, allowed: config.TENANT_RATE_LIMIT_PER_MINUTE },
  { name: `${service}-tenant-day`, per: 'tenant', windowSeconds: 86_400, allowed: config.TENANT_QUOTA_PER_DAY },
];
