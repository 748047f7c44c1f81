import { CoreV1Api, KubeConfig } from '@kubernetes/client-node';
import { z } from 'zod';
import { codeOf } from '../failure.ts';
import { log } from '../log.ts';
import { type Environment, readJson, readSettings, waitSettings } from '../settings.ts';
import { waitFor } from '../wait.ts';
import { secretsPlan } from './plan.ts';
import { reconcileSecrets } from './reconcile.ts';
import { SecretStore } from './store.ts';

const settings = z.object({ PLAN: z.string().default('/etc/soma/plan.json'), ...waitSettings });

/** Generates the region's secrets inside the cluster. */
export async function runSecrets(env: Environment): Promise<void> {
  const { PLAN, WAIT_SECONDS } = readSettings(settings, env);
  const plan = await readJson(secretsPlan, PLAN);
  const config = new KubeConfig();
  config.loadFromDefault();
  const server = {
    name: 'the Kubernetes API',
    address: config.getCurrentCluster()?.server ?? '(no cluster in the configuration)',
    fix: "let the Job's namespace reach the API server (NetworkPolicy) and mount its service account token",
  };
  const store = new SecretStore(config.makeApiClient(CoreV1Api));
  // A resumed attempt finds what the interrupted one stored, so that repeating the whole is safe.
  const counts = await waitFor(server, () => reconcileSecrets(store, plan), {
    seconds: WAIT_SECONDS,
    isFinal: (error) => codeOf(error) === 401,
  });
  log.info('secrets done', { region: plan.region, ...counts });
}
