import { count, httpsUrl, port, temporalVariables, text } from '@somagent/kit';
import { z } from 'zod';

/** The variables of the scaler. */
export const scalerSchema = z.object({
  ...temporalVariables,
  HEALTH_PORT: port('the port of /healthz, /readyz and /scaling').default(8081),
  SLM_URL: httpsUrl('the https address of the model endpoint, ending in /v1'),
  SLM_TOKEN_FILE: text('the file with the token by which the scaler shows the model endpoint who it is'),
  SLM_CA_FILE: text('the PEM file of the authority that signed the certificate of the model endpoint'),
  KUBERNETES_URL: httpsUrl('the address of the API server').default('https://kubernetes.default.svc'),
  KUBERNETES_DIR: text('the directory with token and ca.crt for the API server').default(
    '/var/run/secrets/kubernetes.io/serviceaccount',
  ),
  DEPLOYMENT_NAMESPACE: text('the namespace of the Deployment that is scaled'),
  DEPLOYMENT: text('the Deployment that is scaled, e.g. orchestrator'),
  MIN_REPLICAS: count('the fewest workers'),
  MAX_REPLICAS: count('the most workers'),
  WORK_PER_REPLICA: count('the turns that one worker shall have at once').default(16),
  INTERVAL_MS: count('the time between two looks at the signals, milliseconds').default(2000),
  DOWN_AFTER_MS: count('how long less must have been enough before a worker goes, milliseconds').default(60_000),
});

/** Configuration of the scaler. */
export type ScalerConfig = z.output<typeof scalerSchema>;
