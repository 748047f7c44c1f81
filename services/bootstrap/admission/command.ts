import { readFile } from 'node:fs/promises';
import { KubeConfig } from '@kubernetes/client-node';
import { fetchTrusting } from '@somagent/kit';
import { z } from 'zod';
import { log } from '../log.ts';
import { type Environment, readJson, readSettings, waitSettings } from '../settings.ts';
import { waitFor } from '../wait.ts';
import { admissionPlan, fillWebhooks } from './webhooks.ts';

const settings = z.object({
  PLAN: z.string().default('/etc/soma/plan.json'),
  CA_FILE: z.string().default('/secrets/ca/ca.crt'),
  ...waitSettings,
});

/** Puts admission in force, once its server answers: a webhook that nobody answers would lock the region out. */
export async function runAdmission(env: Environment): Promise<void> {
  const { PLAN, CA_FILE, WAIT_SECONDS: seconds } = readSettings(settings, env);
  const plan = await readJson(admissionPlan, PLAN);
  const get = fetchTrusting(CA_FILE);
  const policyServer = { name: 'the policy server', address: plan.health, fix: 'look at its pod and its log' };
  const asks = async () => {
    const { status } = await get(plan.health);
    if (status !== 200) throw new Error(`answered ${status}`);
  };
  await waitFor(policyServer, asks, { seconds });
  const config = new KubeConfig();
  config.loadFromDefault();
  const apiServer = {
    name: 'the Kubernetes API',
    address: config.getCurrentCluster()?.server ?? '(no cluster in the configuration)',
    fix: "let the Job's namespace reach the API server (NetworkPolicy) and mount its service account token",
  };
  const authority = await readFile(CA_FILE, 'utf8');
  const changed = await waitFor(apiServer, () => fillWebhooks(config, plan, authority), { seconds });
  log.info('admission done', { configuration: plan.configuration, changed });
}
