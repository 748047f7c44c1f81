import { readFile } from 'node:fs/promises';
import type { JsonSchema } from '@somagent/events/json-schema.ts';
import { fetchTrusting, httpsUrl, text } from '@somagent/kit';
import { importPKCS8, SignJWT } from 'jose';
import { z } from 'zod';
import type { SchemaSource } from './evolution.ts';

/** The variables of the schema registry. */
export const registryVariables = {
  SCHEMA_REGISTRY_URL: httpsUrl('the address of the schema registry, e.g. https://schema-registry.local-data.svc:8443'),
  SCHEMA_REGISTRY_CA_FILE: text('the PEM file of the authority that signed the certificate of the schema registry'),
  SCHEMA_REGISTRY_KEY_FILE: text('the PEM file (PKCS #8) of the key of those who read schemas'),
};

const variables = z.object(registryVariables);
/** Where the schema registry is, and as whom to ask it. */
export type RegistryConfig = z.output<typeof variables>;

const found = z.looseObject({ schema: z.string() });

/** Schemas of a registry with Confluent's API, read with tokens of the readers' key. */
export function registrySchemas(config: RegistryConfig): SchemaSource {
  const fetchSchema = fetchTrusting(config.SCHEMA_REGISTRY_CA_FILE);
  return {
    schema: async (subject, version) => {
      const path = `/apis/ccompat/v6/subjects/${encodeURIComponent(subject)}/versions/${version}`;
      const address = `${config.SCHEMA_REGISTRY_URL}${path}`;
      const response = await fetchSchema(address, {
        headers: { authorization: `Bearer ${await readerToken(config)}` },
        signal: AbortSignal.timeout(5000),
      });
      if (response.status === 404) return undefined;
      const body = await response.text();
      if (!response.ok) throw new Error(`${address}: HTTP ${response.status}: ${body.slice(0, 200)}`);
      return JSON.parse(found.parse(JSON.parse(body)).schema) as JsonSchema;
    },
  };
}

/**
 * A token for one question; constructs/schema-registry/server-environment.ts tells the server what it asks of it. The
 * file is read each time, so that a renewed key needs no restart.
 */
async function readerToken({ SCHEMA_REGISTRY_KEY_FILE: file }: RegistryConfig): Promise<string> {
  return new SignJWT({ role: 'sr-readonly' })
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT' })
    .setIssuer('somagent-schema-reader')
    .setAudience('schema-registry')
    .setSubject('analytics')
    .setIssuedAt()
    .setExpirationTime('1m')
    .sign(await importPKCS8(await readFile(file, 'utf8'), 'RS256'));
}
