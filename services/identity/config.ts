import { count, httpsUrl, port, postgresVariables, text, workloadVariables } from '@somagent/kit';
import { kafkaVariables } from '@somagent/kit/kafka.ts';
import { policyVariables } from '@somagent/policy';
import { z } from 'zod';

const list = (description: string) =>
  text(description).transform((value) => value.split(',').map((item) => item.trim()));

/** The variables of `migrate`. */
export const migrateSchema = z.object(postgresVariables);

/** The variables of `serve`. */
export const serveSchema = z.object({
  ...postgresVariables,
  ...kafkaVariables,
  ...policyVariables,
  ...workloadVariables,
  PORT: port('the port of the HTTPS API').default(8443),
  HEALTH_PORT: port('the port of /healthz, /readyz and /routes').default(8081),
  TLS_DIR: text('the directory with tls.crt and tls.key of the service'),
  OIDC_ISSUER: httpsUrl('the issuer in the tokens, e.g. https://localhost:8444/realms/somagent'),
  OIDC_JWKS_URL: httpsUrl('the address of the public keys of the issuer'),
  OIDC_CA_FILE: text('the PEM file of the authority that signed the certificate of the issuer'),
  OIDC_AUDIENCE: text('the audience that a token must name').default('somagent-gateway'),
  LOGOUT_CLIENTS: list('the clients in which people sign in, by commas').default(['somagent-cli', 'somagent-console']),
  KEYCLOAK_URL: httpsUrl('the address of Keycloak within the cluster'),
  KEYCLOAK_REALM: text('the realm').default('somagent'),
  KEYCLOAK_TOKEN_FILE: text('the file with the token of this pod for Keycloak'),
  KEYCLOAK_CA_FILE: text('the PEM file of the authority that signed the certificate of Keycloak'),
  SERVICE_ACCOUNT_SCOPES: list('the client scopes of new service accounts, by commas').default([
    'somagent',
    'somagent-gateway',
  ]),
  RATE_LIMIT_PER_MINUTE: count('the requests that one subject of a tenant may send in a minute').default(1200),
});

/** Configuration of `serve`. */
export type ServeConfig = z.output<typeof serveSchema>;
