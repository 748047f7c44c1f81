import { Bootstrap, RegionChart, RegionNamespaces, SecretPlan } from '@somagent/constructs';
import type { App } from 'cdk8s';
import { type DataProducts, dataProducts } from './data-products.ts';
import { type IdentityProducts, identityProducts } from './identity-products.ts';
import { apiServer, type Wiring } from './products.ts';
import { type PlacedProduct, productPlanes, type RegionArgs } from './region-args.ts';
import { type RuntimeProducts, runtimeProducts } from './runtime-products.ts';
import { type ServicesProducts, servicesProducts } from './services-products.ts';
import { type SystemProducts, systemProducts } from './system-products.ts';

/** The wired products of a region; what other components and the outputs read addresses from. */
export type RegionProducts = SystemProducts & DataProducts & IdentityProducts & RuntimeProducts & ServicesProducts;

/**
 * All products of a region, wired to each other. They are constructed before the first one is synthesized: a product
 * that is constructed later may still widen the policies, grants and secrets of an earlier one.
 */
export class RegionCharts {
  readonly namespaces: RegionNamespaces;
  readonly charts: Wiring['charts'];
  readonly products: RegionProducts;

  constructor(app: App, region: string, args: RegionArgs) {
    this.namespaces = new RegionNamespaces(app, 'namespaces', { region });
    this.charts = chartsOf(app, region);
    const plan = new SecretPlan(region);
    this.products = wire({ charts: this.charts, plan, args });
    // Last: it closes the plan of secrets that all others have added to.
    new Bootstrap(this.charts.bootstrap, 'bootstrap', { image: args.image('bootstrap'), plan, ...apiServer(args) });
  }
}

function chartsOf(app: App, region: string): Wiring['charts'] {
  const entries = Object.entries(productPlanes).map(([product, plane]) => [
    product,
    new RegionChart(app, product, { region, plane }),
  ]);
  return Object.fromEntries(entries) as Record<PlacedProduct, RegionChart>;
}

function wire(wiring: Wiring): RegionProducts {
  const data = dataProducts(wiring);
  const foundation = {
    ...systemProducts(wiring),
    ...data,
    ...identityProducts(wiring, data),
    ...runtimeProducts(wiring, data),
  };
  return { ...foundation, ...servicesProducts(wiring, foundation) };
}
