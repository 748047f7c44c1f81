import { type LoadedPolicy, loadPolicy } from '@open-policy-agent/opa-wasm';
import { z } from 'zod';
import {
  type BundleFiles,
  dataFile,
  type Entrypoint,
  entrypoints,
  moduleFile,
  parseJson,
  RefusedBundle,
} from './bundle.ts';

/** What a policy says to a question. */
export interface Verdict {
  readonly allow: boolean;
  /** Id of the deciding rule, such as `soma.gateway.allow_by_role`. */
  readonly rule: string;
  /** Why, in words. */
  readonly reasons: readonly string[];
  /** What the caller must do if it goes on. */
  readonly obligations: Readonly<Record<string, unknown>>;
}

const verdictSchema = z.object({
  allow: z.boolean(),
  rule: z.string().regex(/^soma\.[a-z_]+\.(allow|deny)_[a-z_]+$/),
  reasons: z.array(z.string()),
  obligations: z.record(z.string(), z.unknown()),
});

/** A corpus that is compiled and ready. Evaluation is synchronous and keeps nothing between two questions. */
export class CompiledPolicy {
  readonly #policy: LoadedPolicy;
  readonly #ids: ReadonlyMap<string, number>;

  private constructor(policy: LoadedPolicy) {
    this.#policy = policy;
    this.#ids = new Map(Object.entries(policy.entrypoints as unknown as Record<string, number>));
  }

  /** Compiles the module of a bundle. @throws RefusedBundle when it lacks an entry point or does not run. */
  static async of(files: BundleFiles, required: readonly Entrypoint[] = entrypoints): Promise<CompiledPolicy> {
    const module = files.get(moduleFile);
    if (module === undefined) throw new RefusedBundle(`${moduleFile} is not in the bundle`);
    const data = parseJson(files, dataFile);
    let compiled: CompiledPolicy;
    try {
      const policy = await loadPolicy(new Uint8Array(module));
      policy.setData(data as object);
      compiled = new CompiledPolicy(policy);
    } catch (error) {
      throw new RefusedBundle(`${moduleFile} does not load: ${String(error)}`, { cause: error });
    }
    compiled.#prove(required);
    return compiled;
  }

  /** The verdict. @throws Error when the entry point is unknown, the module fails, or it has no verdict. */
  evaluate(entrypoint: string, input: unknown): Verdict {
    const id = this.#ids.get(entrypoint);
    if (id === undefined) throw new Error(`no entry point ${entrypoint} in the bundle`);
    const [answer] = this.#policy.evaluate(input, id) as [{ result: Verdict }?];
    if (answer === undefined) throw new Error(`${entrypoint} has no verdict`);
    return answer.result;
  }

  /** Asks each entry point an empty question: it must be there, have the shape of a verdict, and deny. */
  #prove(required: readonly Entrypoint[]): void {
    for (const entrypoint of required) {
      if (!this.#ids.has(entrypoint)) throw new RefusedBundle(`the bundle has no entry point ${entrypoint}`);
      const verdict = verdictSchema.safeParse(this.evaluate(entrypoint, {}));
      if (!verdict.success) throw new RefusedBundle(`${entrypoint} answers with something that is no verdict`);
      if (verdict.data.allow) throw new RefusedBundle(`${entrypoint} allows an empty question`);
    }
  }
}
