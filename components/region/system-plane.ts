import type { ChartDeployment } from '../bridge/index.ts';
import { Plane, type PlaneArgs, type PlaneOptions } from './plane.ts';

/** What every other plane stands on: the Job that makes all secrets inside the cluster, and the judge of what is admitted. */
export class SystemPlane extends Plane {
  /** Works when every secret of the region is there. */
  readonly secrets: ChartDeployment;
  /** Works when the cluster admits to the other planes only what the policies allow. */
  readonly admission: ChartDeployment;

  constructor(name: string, args: PlaneArgs, opts: PlaneOptions) {
    super('somagent:region:SystemPlane', name, args, opts);
    this.secrets = this.deploy('bootstrap');
    this.admission = this.deploy('opa', [this.secrets]);
    this.registerOutputs({});
  }
}
