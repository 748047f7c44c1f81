import type { RegionChart } from '@somagent/constructs';
import type { ChartDeployment } from '../bridge/index.ts';
import { Plane, type PlaneArgs, type PlaneOptions } from './plane.ts';

/** Arguments of {@link IdentityPlane}. */
export interface IdentityPlaneArgs extends PlaneArgs {
  readonly keycloak: RegionChart;
  readonly databases: ChartDeployment;
}

/** Who may do what: tokens and their issuer. */
export class IdentityPlane extends Plane {
  /** Works when the realm is as the configuration says. */
  readonly realm: ChartDeployment;

  constructor(name: string, args: IdentityPlaneArgs, opts: PlaneOptions) {
    super('somagent:region:IdentityPlane', name, args, opts);
    this.realm = this.deploy('keycloak', args.keycloak, [args.databases]);
    this.registerOutputs({});
  }
}
