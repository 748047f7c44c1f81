import { count, httpsUrl, port, postgresVariables, temporalVariables, text } from '@somagent/kit';
import { z } from 'zod';

/** The variables of the gateway. */
export const gatewaySchema = z.object({
  ...temporalVariables,
  ...postgresVariables,
  PORT: port('the port of the HTTPS API').default(8443),
  HEALTH_PORT: port('the port of /healthz and /readyz').default(8081),
  TLS_DIR: text('the directory with tls.crt and tls.key of the gateway'),
  OIDC_ISSUER: httpsUrl('the issuer in the tokens, e.g. https://localhost:8444/realms/somagent'),
  OIDC_JWKS_URL: httpsUrl('the address of the public keys of the issuer'),
  OIDC_CA_FILE: text('the PEM file of the authority that signed the certificate of the issuer'),
  OIDC_AUDIENCE: text('the audience that a token must name').default('somagent-gateway'),
  RATE_LIMIT_PER_MINUTE: count('the requests that one subject of a tenant may send in a minute').default(600),
  SESSION_IDLE_SECONDS: count('the seconds without a turn after which a session closes itself').default(3600),
});

/** Configuration of the gateway. */
export type GatewayConfig = z.output<typeof gatewaySchema>;
