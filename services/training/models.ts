import { readFile } from 'node:fs/promises';
import type { ObjectStoreBucket } from '@somagent/kit/object-store.ts';
import type { Database } from './database.ts';
import { canonical, type LineageSigner, type Promotion, type SignedLineage, sha256 } from './lineage.ts';

/** A model that is not the one its lineage names. */
export class ModelDamaged extends Error {
  constructor(hash: string, problem: string) {
    super(`model ${hash}: ${problem}`);
    this.name = 'ModelDamaged';
  }
}

/** Options of {@link Models}. */
export interface ModelsOptions {
  readonly bucket: Pick<ObjectStoreBucket, 'get' | 'put'>;
  readonly signer: LineageSigner;
  /** File of the model that serves as long as none was promoted. */
  readonly bundled: string;
}

const octets = 'application/octet-stream';

/**
 * Models in the object store: `<tenant>/<hash>/` holds the GGUF file, its signed lineage and the manifest of its data;
 * `serving/<tenant>.json` says which one serves.
 */
export class Models {
  readonly #options: ModelsOptions;

  constructor(options: ModelsOptions) {
    this.#options = options;
  }

  /** Stores a model that has passed; its lineage comes last, so that who finds it finds everything. */
  async store(tenant: string, model: Buffer, signed: SignedLineage, manifest: string): Promise<void> {
    const { bucket } = this.#options;
    const folder = `${tenant}/${signed.lineage.modelHash}`;
    await bucket.put(`${folder}/model.gguf`, model, octets);
    await bucket.put(`${folder}/manifest.json`, Buffer.from(manifest), 'application/json');
    await bucket.put(`${folder}/lineage.json`, Buffer.from(canonical(signed)), 'application/json');
  }

  /**
   * A stored model, checked against its hash and its signed lineage.
   * @throws ModelDamaged
   */
  async read(tenant: string, hash: string): Promise<Buffer> {
    const [model, stored] = await Promise.all([
      this.#object(tenant, hash, 'model.gguf'),
      this.#object(tenant, hash, 'lineage.json'),
    ]);
    if (sha256(model) !== hash) throw new ModelDamaged(hash, `its SHA-256 is ${sha256(model)}`);
    const signed = JSON.parse(stored.toString('utf8')) as SignedLineage;
    const { tenant: owner, modelHash } = signed.lineage;
    if (owner !== tenant || modelHash !== hash) throw new ModelDamaged(hash, 'its lineage is of another model');
    if (!this.#options.signer.verifies(signed)) throw new ModelDamaged(hash, 'the signature of its lineage is wrong');
    return model;
  }

  /** The model that serves the tenant now. @throws ModelDamaged */
  async serving(db: Database, tenant: string): Promise<Buffer> {
    const promoted = await servingOf(db, tenant);
    return promoted === null ? readFile(this.#options.bundled) : this.read(tenant, promoted.model_hash);
  }

  /** Tells whoever serves models which one of the tenant it is; the database is the truth. */
  async announce(promotion: Promotion): Promise<void> {
    const { bucket, signer } = this.#options;
    const content = canonical(signer.signPromotion(promotion));
    await bucket.put(`serving/${promotion.tenant}.json`, Buffer.from(content), 'application/json');
  }

  async #object(tenant: string, hash: string, name: string): Promise<Buffer> {
    const object = await this.#options.bucket.get(`${tenant}/${hash}/${name}`);
    if (object === undefined || object === 'unchanged') throw new ModelDamaged(hash, `${name} is not in the store`);
    return object.content;
  }
}

/** The newest promotion of a tenant; null as long as the bundled model serves. */
export async function servingOf(db: Database, tenant: string) {
  const newest = await db
    .of(tenant)
    .selectFrom('promotion')
    .selectAll()
    .orderBy('number', 'desc')
    .limit(1)
    .executeTakeFirst();
  return newest ?? null;
}
