import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { importPKCS8, SignJWT } from 'jose';
import { z } from 'zod';
import { log } from '../log.ts';
import { type Environment, readJson, readPem, readSettings, waitSettings } from '../settings.ts';
import { waitFor } from '../wait.ts';
import { kafkaPlan } from './plan.ts';
import { RegistryError, reconcileSchemas, SchemaRegistry } from './registry.ts';
import { Report } from './report.ts';

const settings = z.object({
  PLAN: z.string().default('/etc/soma/plan.json'),
  REGISTRY_URL: z.url({ protocol: /^https$/, error: 'must be an https URL: a token travels on it' }),
  REGISTRY_CA_FILE: z.string().default('/secrets/ca/ca.crt'),
  REGISTRY_KEY_FILE: z.string().default('/secrets/registry-key/private.pem'),
  ...waitSettings,
});

/** What the registry asks of a token: constructs/schema-registry/server-environment.ts says the same to the server. */
const claims = { issuer: 'somagent-bootstrap', audience: 'schema-registry', role: 'sr-admin' } as const;

/** Registers the schemas of the plan, and says what was different. */
export async function runSchemas(env: Environment): Promise<void> {
  const values = readSettings(settings, env);
  const { schemas } = await readJson(kafkaPlan, values.PLAN);
  const key = await readPem(values.REGISTRY_KEY_FILE);
  setDefaultCACertificates([...getCACertificates('default'), await readPem(values.REGISTRY_CA_FILE)]);
  const registry = new SchemaRegistry(values.REGISTRY_URL, () => registryToken(key));
  const server = {
    name: 'Schema registry',
    address: values.REGISTRY_URL,
    fix: 'look at the schema-registry pod and its log, the NetworkPolicy, and the Secrets schema-registry-key and schema-registry-tls',
  };
  const attempt = async () => {
    const report = new Report();
    await reconcileSchemas(registry, schemas, report);
    return report.counts;
  };
  const counts = await waitFor(server, attempt, { seconds: values.WAIT_SECONDS, isFinal: isRefusal });
  log.info('schemas done', { ...counts });
}

/** A token of the region's own key, good for five minutes: the registry asks nobody about it. */
export async function registryToken(privatePem: string, role: string = claims.role): Promise<string> {
  return new SignJWT({ groups: [role] })
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT' })
    .setIssuer(claims.issuer)
    .setAudience(claims.audience)
    .setSubject('bootstrap')
    .setIssuedAt()
    .setExpirationTime('5m')
    .sign(await importPKCS8(privatePem, 'RS256'));
}

/** The registry is there and says no: waiting will not mend it. */
function isRefusal(error: unknown): boolean {
  return error instanceof RegistryError && error.status >= 400 && error.status < 500;
}
