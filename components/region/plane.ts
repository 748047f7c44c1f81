import * as pulumi from '@pulumi/pulumi';
import { ChartDeployment } from '../bridge/index.ts';
import type { Wiring } from './products.ts';
import type { PlacedProduct, Transforms } from './region-args.ts';

/** Options of a plane: without an explicit provider its objects would land in whatever cluster is current. */
export interface PlaneOptions extends pulumi.ComponentResourceOptions {
  readonly provider: pulumi.ProviderResource;
}

/** Arguments that every plane has. */
export interface PlaneArgs {
  readonly charts: Wiring['charts'];
  readonly transform?: Transforms | undefined;
}

/** What the planes of a region have in common: how they deploy a product's chart. */
export abstract class Plane extends pulumi.ComponentResource {
  readonly #name: string;
  readonly #options: PlaneOptions;
  readonly #charts: PlaneArgs['charts'];
  readonly #transform: Transforms;

  constructor(type: string, name: string, args: PlaneArgs, opts: PlaneOptions) {
    super(type, name, {}, opts);
    this.#name = name;
    this.#options = opts;
    this.#charts = args.charts;
    this.#transform = args.transform ?? {};
  }

  /**
   * Deploys a product.
   * @param startAfter what must work before its pods start; the rest of the plane's objects don't wait for it
   */
  protected deploy(product: PlacedProduct, startAfter: readonly pulumi.Resource[] = []): ChartDeployment {
    const args = { chart: this.#charts[product], startAfter, transform: this.#transform[product] };
    return new ChartDeployment(`${this.#name}-${product}`, args, this.#childOptions());
  }

  /** Ordering is not inherited from a parent, and the provider must not be left to inheritance. */
  #childOptions(): PlaneOptions {
    const { provider, dependsOn } = this.#options;
    return { parent: this, provider, ...(dependsOn !== undefined && { dependsOn }) };
  }
}
