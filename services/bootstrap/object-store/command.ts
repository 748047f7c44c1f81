import { ObjectStoreError } from '@somagent/kit/object-store.ts';
import { z } from 'zod';
import { log } from '../log.ts';
import { type Environment, readJson, readSettings, waitSettings } from '../settings.ts';
import { waitFor } from '../wait.ts';
import { objectStorePlan } from './plan.ts';
import { reconcileObjectStore } from './reconcile.ts';

const settings = z.object({
  PLAN: z.string().default('/etc/soma/plan.json'),
  OBJECT_STORE_URL: z.url({ protocol: /^https$/, error: 'must be an https URL: secret keys travel on it' }),
  OBJECT_STORE_CA_FILE: z.string().default('/secrets/ca/ca.crt'),
  ADMIN_DIR: z.string().default('/secrets/admin'),
  USERS_DIR: z.string().default('/secrets/users'),
  ...waitSettings,
});

/** Creates users, buckets and rights of the object store. */
export async function runObjectStore(env: Environment): Promise<void> {
  const values = readSettings(settings, env);
  const plan = await readJson(objectStorePlan, values.PLAN);
  const server = {
    name: 'the object store',
    address: values.OBJECT_STORE_URL,
    fix: 'check that its pod is ready and that the NetworkPolicy admits this Job',
  };
  const admin = { url: values.OBJECT_STORE_URL, credentialsDir: values.ADMIN_DIR, caFile: values.OBJECT_STORE_CA_FILE };
  await waitFor(server, () => reconcileObjectStore(admin, plan, values.USERS_DIR), {
    seconds: values.WAIT_SECONDS,
    isFinal: (error) => error instanceof ObjectStoreError && error.status < 500,
  });
  log.info('object store done', { users: plan.users.length, buckets: plan.buckets.length });
}
