import { createHash } from 'node:crypto';
import model from '@somagent/openfga-model/model.json' with { type: 'json' };
import type { OpenFga, StoredModel } from './client.ts';

/** The model of `policies/openfga`, as OpenFGA takes it. */
export type Model = Omit<StoredModel, 'id'>;

/** Ids that every question names. */
export interface ModelLocation {
  readonly store: string;
  readonly model: string;
}

/** The model that this version of the platform is made for. */
export const currentModel: Model = model;

/** Default name of the store. */
export const storeName = 'somagent';

/** SHA-256 (hex, 64) of a model's content, whatever its id and the order of its keys. */
export const modelDigest = ({ schema_version, type_definitions, conditions }: Model): string =>
  createHash('sha256').update(canonical({ schema_version, type_definitions, conditions })).digest('hex');

/** OpenFGA gives a model back with empty fields that it was not written with. */
function canonical(value: unknown): string {
  return JSON.stringify(meaningful(value) ?? null);
}

function meaningful(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => meaningful(item) ?? null);
  if (typeof value !== 'object' || value === null) return value === null || value === '' ? undefined : value;
  const fields = Object.entries(value)
    .map(([name, item]) => [name, name === 'this' ? 'this' : meaningful(item)] as const)
    .filter(([, item]) => item !== undefined && !(Array.isArray(item) && item.length === 0))
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return fields.length === 0 ? undefined : Object.fromEntries(fields);
}

/**
 * Finds the store and, in it, the very model that this program was made for.
 * @throws Error when one of them is not there yet.
 */
export async function locateModel(client: OpenFga, name = storeName, wanted = currentModel): Promise<ModelLocation> {
  const [store] = await client.stores(name);
  if (store === undefined) throw new Error(`OpenFGA has no store "${name}" yet: the relations service makes it`);
  const found = await findModel(client, store.id, wanted);
  if (found === undefined) {
    throw new Error(
      `store "${name}" has no model ${modelDigest(wanted).slice(0, 12)} yet: the relations service makes it`,
    );
  }
  return { store: store.id, model: found };
}

/**
 * Makes the store and the model unless they are there. Safe to repeat and to run twice at once: of two stores with the
 * name the oldest is the one that counts, and a newer one that nobody has written to is deleted by its maker.
 */
export async function ensureModel(client: OpenFga, name = storeName, wanted = currentModel): Promise<ModelLocation> {
  const store = await ensureStore(client, name);
  const found = await findModel(client, store, wanted);
  return { store, model: found ?? (await client.writeModel(store, wanted)) };
}

async function ensureStore(client: OpenFga, name: string): Promise<string> {
  const [known] = await client.stores(name);
  if (known !== undefined) return known.id;
  const made = await client.createStore(name);
  const [oldest] = await client.stores(name);
  if (oldest === undefined || oldest.id === made.id) return made.id;
  await client.deleteStore(made.id);
  return oldest.id;
}

async function findModel(client: OpenFga, store: string, wanted: Model): Promise<string | undefined> {
  const digest = modelDigest(wanted);
  for await (const each of client.models(store)) if (modelDigest(each) === digest) return each.id;
  return undefined;
}
