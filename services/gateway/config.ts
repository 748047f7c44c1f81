import { quotaVariables, userTokenVariables } from '@somagent/governance';
import {
  controlVariables,
  count,
  kafkaVariables,
  port,
  postgresVariables,
  temporalVariables,
  text,
} from '@somagent/kit';
import { policyVariables } from '@somagent/policy';
import { openFgaVariables } from '@somagent/relations';
import { z } from 'zod';

/** The variables of the gateway. */
export const gatewaySchema = z.object({
  ...temporalVariables,
  ...postgresVariables,
  ...userTokenVariables,
  ...controlVariables,
  ...policyVariables,
  ...openFgaVariables,
  ...kafkaVariables,
  ...quotaVariables,
  PORT: port('the port of the HTTPS API').default(8443),
  HEALTH_PORT: port('the port of /healthz and /readyz').default(8081),
  TLS_DIR: text('the directory with tls.crt and tls.key of the gateway'),
  MODELS_FILE: text('the JSON file of providers and models, see services/models/README.md'),
  MODEL_DEADLINE_SECONDS: count('the seconds that a request of a model may take').default(120),
  SESSION_IDLE_SECONDS: count('the seconds without a turn after which a session closes itself').default(3600),
});

/** Configuration of the gateway. */
export type GatewayConfig = z.output<typeof gatewaySchema>;
