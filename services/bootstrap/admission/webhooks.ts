import { AdmissionregistrationV1Api, type KubeConfig, type V1ValidatingWebhook } from '@kubernetes/client-node';
import { z } from 'zod';
import { codeOf, Failure } from '../failure.ts';
import { log } from '../log.ts';

/** What the Job `admission` reads: the webhooks of one configuration, without the authority that only the cluster has. */
export const admissionPlan = z.strictObject({
  /** Name of the ValidatingWebhookConfiguration; the stack creates and deletes it, this Job fills it. */
  configuration: z.string().min(1),
  /** Address that answers before a webhook may block anything: `https://host:port/health`. */
  health: z.url({ protocol: /^https$/ }),
  /** As the API has them. */
  webhooks: z.array(z.looseObject({ name: z.string(), clientConfig: z.looseObject({}) })).min(1),
});

/** Values of {@link admissionPlan}. */
export type AdmissionPlan = z.output<typeof admissionPlan>;

/** Writes the webhooks with the authority that signed the server's certificate. @returns false when nothing changed. */
export async function fillWebhooks(config: KubeConfig, plan: AdmissionPlan, authority: string): Promise<boolean> {
  const api = config.makeApiClient(AdmissionregistrationV1Api);
  const caBundle = Buffer.from(authority).toString('base64');
  const webhooks = plan.webhooks.map((webhook) => ({
    ...webhook,
    clientConfig: { ...webhook.clientConfig, caBundle },
  })) as unknown as V1ValidatingWebhook[];
  try {
    const before = await api.readValidatingWebhookConfiguration({ name: plan.configuration });
    const body = [{ op: 'add', path: '/webhooks', value: webhooks }];
    const after = await api.patchValidatingWebhookConfiguration({ name: plan.configuration, body });
    const changed = before.metadata?.resourceVersion !== after.metadata?.resourceVersion;
    if (changed) log.info('webhooks in force', { configuration: plan.configuration, webhooks: webhooks.length });
    return changed;
  } catch (error) {
    throw explain(plan.configuration, error);
  }
}

function explain(name: string, error: unknown): unknown {
  const object = `ValidatingWebhookConfiguration ${name}`;
  if (codeOf(error) === 404) return new Failure(`${object} is absent`, 'apply the stack: it creates the empty object');
  if (codeOf(error) === 403) {
    return new Failure(`${object}: not allowed to change it`, "grant get and patch on it to the Job's service account");
  }
  return error;
}
