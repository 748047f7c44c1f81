/** Writes `model.json` from `model.fga`: `node policies/openfga/generate.ts`. Services load the JSON. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { transformer } from '@openfga/syntax-transformer';

const folder = import.meta.dirname;

/** The text of `model.json` that belongs to `model.fga`. @throws an error with the line that is wrong. */
export const generatedModel = (): string =>
  `${JSON.stringify(transformer.transformDSLToJSONObject(readFileSync(join(folder, 'model.fga'), 'utf8')), undefined, 2)}\n`;

if (import.meta.main) writeFileSync(join(folder, 'model.json'), generatedModel());
