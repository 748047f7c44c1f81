/**
 * Writes the types of every API from the declared routes: `node services/sdk/generate.ts`. A test sees to it that what
 * is written is current.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { routes as analytics } from '@somagent/analytics/api/routes.ts';
import { routes as audit } from '@somagent/audit/api/routes.ts';
import { routes as gateway } from '@somagent/gateway/routes.ts';
import type { DeclaredRoute } from '@somagent/governance';
import { openApiDocument } from '@somagent/governance/document.ts';
import { routes as identity } from '@somagent/identity/routes.ts';
import { routes as memory } from '@somagent/memory-gateway/routes.ts';
import { routes as training } from '@somagent/training/routes.ts';
import openapiTS, { astToString } from 'openapi-typescript';

/** The services that have an API, with their declared routes. */
export const apis: Readonly<Record<string, Readonly<Record<string, DeclaredRoute>>>> = {
  analytics,
  audit,
  gateway,
  identity,
  memory,
  training,
};

const head = '// Generated from the declared routes: node services/sdk/generate.ts\n';

/** The generated files by name. */
export async function generate(): Promise<ReadonlyMap<string, string>> {
  const files = new Map<string, string>();
  for (const [name, routes] of Object.entries(apis)) {
    const types = await openapiTS(openApiDocument(`SomaGent ${name}`, routes), { immutable: true, alphabetize: true });
    files.set(`${name}.ts`, head + astToString(types));
  }
  return files;
}

/** Folder of the generated files. */
export const generatedFolder = join(import.meta.dirname, 'generated');

if (import.meta.main) {
  for (const [name, text] of await generate()) writeFileSync(join(generatedFolder, name), text);
}
