import type { ChartDeployment } from '../bridge/index.ts';
import type { DataPlane } from './data-plane.ts';
import { Plane, type PlaneArgs, type PlaneOptions } from './plane.ts';

/** Arguments of {@link IdentityPlane}. */
export interface IdentityPlaneArgs extends PlaneArgs {
  readonly secrets: ChartDeployment;
  readonly data: DataPlane;
}

/** Who may do what: tokens and their issuer. */
export class IdentityPlane extends Plane {
  /** Works when the realm is as the configuration says. */
  readonly realm: ChartDeployment;
  /** Works when relations can be asked for. */
  readonly relations: ChartDeployment;
  /** Works when the signed policies are where services load them. */
  readonly policies: ChartDeployment;
  /** Works when checkpoints of the audit log can be signed a second time. */
  readonly witness: ChartDeployment;

  constructor(name: string, args: IdentityPlaneArgs, opts: PlaneOptions) {
    super('somagent:region:IdentityPlane', name, args, opts);
    this.realm = this.deploy('keycloak', [args.data.databases]);
    this.relations = this.deploy('openfga', [args.data.databases]);
    this.policies = this.deploy('policy', [args.data.buckets]);
    this.witness = this.deploy('audit-witness', [args.secrets]);
    this.registerOutputs({});
  }
}
